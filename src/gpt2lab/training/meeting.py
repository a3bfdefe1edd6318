"""How the processes of a run find each other, after a restart too. Knows nothing of what they do together."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import torch.distributed as dist

TIME_TO_MEET = 300.0  # seconds


def fresh_store(store: Any, rank: int, size: int) -> Any:
    """A part of ``store`` that nobody wrote to: rank 0 makes its name up and tells everybody.

    Several versions of torchrun keep one store over restarts, in which addresses of dead processes would be believed
    (pytorch issue 135712), and the number of restarts that it tells is not the same on every machine. Every process
    therefore greets with a name that was never used, and rank 0 answers greetings until all have confirmed its own.
    """
    own = uuid4().hex
    if rank:
        store.set(f"gpt2lab/greeting/{rank}", own)
        answer = store.get(f"gpt2lab/answer/{own}").decode()  # waits
        store.set(f"gpt2lab/confirmed/{own}/{answer}", "yes")
        return dist.PrefixStore(answer, store)
    waiting, begin = set(range(1, size)), time.monotonic()
    while waiting:
        for other in sorted(waiting):
            if store.check([f"gpt2lab/greeting/{other}"]):
                greeting = store.get(f"gpt2lab/greeting/{other}").decode()  # perhaps a dead process's, for now
                store.set(f"gpt2lab/answer/{greeting}", own)
                if store.check([f"gpt2lab/confirmed/{greeting}/{own}"]):
                    waiting.remove(other)
        if time.monotonic() - begin > TIME_TO_MEET:
            raise RuntimeError(f"process {min(waiting)} has not come in {TIME_TO_MEET:.0f} s")
        time.sleep(0.02)
    return dist.PrefixStore(own, store)

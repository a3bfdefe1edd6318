"""The rendezvous of the processes of a run, also after a restart.

This module knows nothing of what they do together.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import torch.distributed as dist

TIME_TO_MEET = 300.0  # seconds


def fresh_store(store: Any, rank: int, size: int) -> Any:
    """Return an unused part of ``store``, under a name that rank 0 makes up and sends to all processes.

    Several versions of torchrun keep one store across restarts, in which processes would find and trust the addresses
    of dead ones (pytorch issue 135712). The restart count that torchrun reports differs between machines. Every process
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
                greeting = store.get(f"gpt2lab/greeting/{other}").decode()  # may still be that of a dead process
                store.set(f"gpt2lab/answer/{greeting}", own)
                if store.check([f"gpt2lab/confirmed/{greeting}/{own}"]):
                    waiting.remove(other)
        if time.monotonic() - begin > TIME_TO_MEET:
            raise RuntimeError(f"process {min(waiting)} did not connect within {TIME_TO_MEET:.0f} s")
        time.sleep(0.02)
    return dist.PrefixStore(own, store)

"""gpt2lab itself: ``load`` and ``generate``, without speculation, so that every token costs a step, as in the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Generate, drive


def load(model: Path, threads: int, options: dict[str, Any]) -> Generate:
    import gpt2lab

    opened = gpt2lab.load(model, threads=threads, **options)

    def generate(prompts: list[list[int]], new: int) -> int:
        completions = opened.generate(
            prompts, length=new, temperature=0.0, ignore_eos=True, speculation="off", logprobs=False
        )
        return sum(len(completion.tokens) for completion in completions)

    return generate


if __name__ == "__main__":
    drive(load)

"""CTranslate2: ``Generator.generate_batch``. The model's folder was converted with tokens named t0, t1, … by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Generate, drive


def load(model: Path, threads: int, options: dict[str, Any]) -> Generate:
    import ctranslate2

    generator = ctranslate2.Generator(str(model), device="cpu", inter_threads=1, intra_threads=threads, **options)

    def generate(prompts: list[list[int]], new: int) -> int:
        results = generator.generate_batch(
            [[f"t{token}" for token in prompt] for prompt in prompts],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=len(prompts),
        )
        return sum(len(result.sequences_ids[0]) for result in results)

    return generate


if __name__ == "__main__":
    drive(load)

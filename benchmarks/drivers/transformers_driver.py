"""Hugging Face transformers: ``GPT2LMHeadModel.generate`` in eager mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Generate, drive


def load(model: Path, threads: int, options: dict[str, Any]) -> Generate:
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(threads)
    gpt2 = GPT2LMHeadModel.from_pretrained(model, dtype=getattr(torch, options["dtype"])).eval()
    gpt2.generation_config.eos_token_id = None
    gpt2.generation_config.pad_token_id = 50256

    def generate(prompts: list[list[int]], new: int) -> int:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            drawn = gpt2.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
        return drawn[:, ids.shape[1] :].numel()

    return generate


if __name__ == "__main__":
    drive(load)

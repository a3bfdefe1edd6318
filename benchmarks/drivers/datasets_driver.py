"""Hugging Face datasets: ``load_dataset("text")``, then ``map`` with a fast tokenizer, as run_clm.py does.

Prints one line of JSON: seconds of both steps, and the tokens. This module knows nothing of gpt2lab.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=Path, required=True, help="folder of .txt")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--cache", type=Path, required=True, help="an empty folder")
    parser.add_argument("--sample_by", choices=["line", "document"], required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()

    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(arguments.tokenizer))
    files = sorted(str(path) for path in arguments.files.glob("*.txt"))
    start = time.perf_counter()
    raw = datasets.load_dataset(
        "text",
        data_files=files,
        sample_by=arguments.sample_by,
        keep_linebreaks=True,
        cache_dir=str(arguments.cache),
        split="train",
    )
    loaded = time.perf_counter()
    encoded = raw.map(
        lambda rows: tokenizer(rows["text"], return_attention_mask=False),
        batched=True,
        batch_size=1000 if arguments.sample_by == "line" else 8,
        num_proc=arguments.jobs,
        remove_columns=["text"],
    )
    mapped = time.perf_counter()
    tokens = sum(len(ids) for batch in encoded.with_format("arrow").iter(64) for ids in batch["input_ids"])
    print(json.dumps({"load": loaded - start, "map": mapped - loaded, "tokens": tokens}))


if __name__ == "__main__":
    main()

"""Train one program on token ids in a separate process, and print one JSON object with its held-out losses over time.

Both programs see the same ids and are judged on the same held-out windows with the same code. The clock runs during
updates only: it includes a compiler's time, but neither the start nor the validations. nanoGPT's loop is its
``train.py`` in short: random windows, AdamW in two groups, warm-up and cosine to a tenth of the peak, gradients
clipped at 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT = 200
"""The most windows that a validation reads."""
Program = tuple[Callable[[], Any], Callable[[Any, Any], Any]]
"""A function that makes one update, and one that returns the mean loss of inputs and targets [windows, block]."""


def gpt2lab(options: argparse.Namespace, ids: Any) -> Program:
    """Return gpt2lab's trainer with the defaults of ``gpt2lab train --from_scratch``."""
    import torch

    from gpt2lab.config import ModelConfig
    from gpt2lab.data.tokens import Documents
    from gpt2lab.data.windows import Ring, Windows
    from gpt2lab.training.loop import Trainer
    from gpt2lab.training.memory import estimate
    from gpt2lab.training.module import GPT2
    from gpt2lab.training.ops.compute import Compute
    from gpt2lab.training.ops.pool import Pool
    from gpt2lab.training.ops.products import native_is_faster
    from gpt2lab.training.settings import Settings, resolved

    shape = {name: getattr(options, name) for name in ("n_vocab", "n_embd", "n_head", "n_layer")}
    config = ModelConfig(**shape, n_ctx=options.block)
    windows = Windows(Ring(Documents.of([ids], config.n_vocab), separator=None), options.block, options.seed)
    settings = Settings(steps=options.updates, batch_size=options.batch, accumulate_gradients=1, seed=options.seed)
    settings = resolved(settings, config, len(windows), from_scratch=True)
    pool = Pool(estimate(config, settings).total)
    compute = Compute(options.precision, native=native_is_faster(options.precision), pool=pool)
    trainer = Trainer(GPT2(config, compute=compute), settings, windows, None, Path())

    def loss(x: Any, y: Any) -> Any:
        with torch.no_grad():
            return trainer.model(x, y) / x.numel()

    return trainer.update, loss


def nanogpt(options: argparse.Namespace, ids: Any) -> Program:
    """Return nanoGPT's model, loop and learning rates of its example for small networks."""
    import torch

    sys.path.insert(0, options.nanogpt)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = {name: getattr(options, name) for name in ("n_embd", "n_head", "n_layer")}
    n_vocab = options.n_vocab if options.n_vocab < 50257 else 50304  # rounded up, as train.py does, for speed
    model = GPT(GPTConfig(**shape, block_size=options.block, vocab_size=n_vocab, bias=False, dropout=0.0))
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    if options.fused:
        optimizer = torch.optim.AdamW(optimizer.param_groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    compiled = torch.compile(model) if options.compile else model
    rates = nanogpt_rates(options.updates)

    def mean_loss(x: Any, y: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bfloat16"):
            return compiled(x, y)[1]

    def update() -> None:
        for group in optimizer.param_groups:
            group["lr"] = next(rates) if group is optimizer.param_groups[0] else optimizer.param_groups[0]["lr"]
        starts = torch.randint(len(ids) - options.block, (options.batch,))
        mean_loss(*windows_at(ids, starts.numpy(), options.block)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def loss(x: Any, y: Any) -> Any:
        with torch.no_grad():
            return mean_loss(x, y)

    return update, loss


def nanogpt_rates(updates: int, peak: float = 1e-3, warm: int = 100) -> Iterator[float]:
    """Yield the learning rate of each update: up in ``warm`` updates, then a cosine down to a tenth of the peak."""
    for step in range(updates):
        if step < warm:
            yield peak * (step + 1) / (warm + 1)
        else:
            done = (step - warm) / max(1, updates - warm)
            yield peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def windows_at(ids: Any, starts: Any, block: int) -> tuple[Any, Any]:
    """Return inputs and targets, int64 [windows, block], of the windows that begin at ``starts``."""
    import torch

    rows = torch.from_numpy(ids[np.asarray(starts)[:, None] + np.arange(block + 1)].astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def validate(loss: Callable[[Any, Any], Any], ids: Any, block: int, batch: int) -> float:
    """Return the mean loss over at most HELD_OUT windows, evenly spread over ``ids`` and without overlap."""
    total = (len(ids) - 1) // block
    starts = block * (np.arange(min(total, HELD_OUT)) * total // min(total, HELD_OUT))
    parts = [starts[first : first + batch] for first in range(0, len(starts), batch)]
    return sum(float(loss(*windows_at(ids, part, block))) * len(part) for part in parts) / len(starts)


def main() -> None:
    options = parse()
    if options.program == "gpt2lab":
        from gpt2lab.training.memory import prepare_process

        prepare_process(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    ids, held_out = (np.fromfile(path, np.uint16) for path in (options.train, options.val))
    update, loss = PROGRAMS[options.program](options, ids)
    curve, seconds, processor = [], 0.0, 0.0
    for step in range(1, options.updates + 1):
        begin, began = time.perf_counter(), time.process_time()
        update()
        seconds += time.perf_counter() - begin
        processor += time.process_time() - began
        if step % options.every == 0 or step == options.updates:
            found = validate(loss, held_out, options.block, options.batch)
            curve.append([step, round(seconds, 3), round(processor, 3), round(found, 4)])
            print(curve[-1], file=sys.stderr, flush=True)
    print(json.dumps({"curve": curve}))


PROGRAMS = {"gpt2lab": gpt2lab, "nanogpt": nanogpt}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", choices=[*PROGRAMS], required=True)
    for name in ("train", "val"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="uint16 token ids")
    for name in ("n_vocab", "n_embd", "n_head", "n_layer", "block", "batch", "updates", "every"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--nanogpt", default="", help="folder with nanoGPT's model.py")
    return parser.parse_args()


if __name__ == "__main__":
    main()

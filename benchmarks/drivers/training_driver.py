"""Time one program's training steps in a separate process, and print one JSON object."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

SHAPES = {
    "124M": {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12},
    "tales": {"n_vocab": 50257, "n_ctx": 512, "n_embd": 256, "n_head": 8, "n_layer": 8},
}


def gpt2lab(options: argparse.Namespace) -> tuple[Any, list[Any], Callable[..., Any]]:
    from gpt2lab.config import ModelConfig
    from gpt2lab.training.module import GPT2
    from gpt2lab.training.ops.compute import Compute
    from gpt2lab.training.ops.pool import Pool
    from gpt2lab.training.ops.products import native_is_faster
    from gpt2lab.training.optimizers import choose_trainable, make_optimizers
    from gpt2lab.training.settings import Settings

    native = native_is_faster(options.precision) if options.products == "auto" else options.products == "native"
    pool = Pool(4 << 30)  # of address space
    model = GPT2(
        ModelConfig(**SHAPES[options.model]), compute=Compute(options.precision, options.recompute, native, pool)
    )
    settings = Settings(lora=options.lora, lora_targets="attn.q,attn.v")
    choose_trainable(model, settings)
    optimizers = make_optimizers(model, settings)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
    return model, optimizers, lambda x, y: model(x, y) / x.numel()


def nanogpt(options: argparse.Namespace) -> tuple[Any, list[Any], Callable[..., Any]]:
    import torch

    sys.path.insert(0, options.nanogpt)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = SHAPES[options.model]
    sizes = {name: shape[name] for name in ("n_embd", "n_head", "n_layer")}
    model = GPT(GPTConfig(block_size=shape["n_ctx"], vocab_size=shape["n_vocab"], **sizes))
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), "cpu")
    if options.fused:
        optimizer = torch.optim.AdamW(optimizer.param_groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    compiled = torch.compile(model) if options.compile else model
    return model, [optimizer], autocast(lambda x, y: compiled(x, y)[1], options)


def transformers(options: argparse.Namespace) -> tuple[Any, list[Any], Callable[..., Any]]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size" if name == "n_vocab" else name: size for name, size in SHAPES[options.model].items()}
    model = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    return model, [optimizer], autocast(lambda x, _: model(input_ids=x, labels=x, use_cache=False).loss, options)


def autocast(loss: Callable[..., Any], options: argparse.Namespace) -> Callable[..., Any]:
    import torch

    if options.precision == "float32":
        return loss

    def in_bfloat16(x: Any, y: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(x, y)

    return in_bfloat16


def operations(model: str, batch: int, time: int) -> float:
    """Return the operations of an update: 6 for each weight and token, and half of attention's square."""
    shape = SHAPES[model]
    width, layers = shape["n_embd"], shape["n_layer"]
    products = layers * 12 * width**2 + shape["n_vocab"] * width
    return batch * time * (6 * products + 6 * layers * width * time)


def matmul_limit() -> dict[str, float]:
    """Return GFLOP/s of PyTorch's matrix products at the largest size in training: the best of ten."""
    import torch

    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(1024, 3072).to(dtype), torch.randn(3072, 3072).to(dtype)
        seconds = []
        for _ in range(12):
            begin = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - begin)
        rates[str(dtype).removeprefix("torch.")] = 2 * 1024 * 3072 * 3072 / min(seconds) / 1e9
    return rates


def main() -> None:
    options = parse()
    if options.program == "gpt2lab":
        from gpt2lab.training.memory import prepare_process

        prepare_process(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.program == "limit":
        print(json.dumps(matmul_limit()))
        return
    model, optimizers, loss_of = PROGRAMS[options.program](options)
    model.train()
    seconds = []
    for _ in range(options.warm + options.steps):
        x, y = torch.randint(0, SHAPES[options.model]["n_vocab"], (2, options.batch, options.time))
        begin = time.perf_counter()
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        seconds.append(time.perf_counter() - begin)
    step = statistics.median(seconds[options.warm :])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    figures = {"tokens_s": options.batch * options.time / step, "step_s": step, "peak_mib": peak / 2**20}
    gflop_s = operations(options.model, options.batch, options.time) / step / 1e9
    print(json.dumps(figures | {"gflop_s": gflop_s, "first_step_s": seconds[0]}))


PROGRAMS = {"gpt2lab": gpt2lab, "nanogpt": nanogpt, "transformers": transformers}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", choices=[*PROGRAMS, "limit"], required=True)
    parser.add_argument("--model", choices=list(SHAPES), default="124M")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--time", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--recompute", default="cheap")
    parser.add_argument("--lora", type=int, default=0)
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--products", choices=["auto", "native", "torch"], default="auto", help="library for gpt2lab's products"
    )
    parser.add_argument("--nanogpt", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()

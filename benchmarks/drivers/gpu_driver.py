"""One part of benchmarks/gpu.py, in a process of its own: prints one JSON object.

Checks have ``passed``; parts that measure have tokens per second, or say why they were ``skipped``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines import open_engine
from gpt2lab.engines.precision import TORCH_DEVICES, TORCH_PRECISIONS
from gpt2lab.engines.protocol import Draw, Engine
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights import open_checkpoint

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
PROMPT, NEW, N_VOCAB = 512, 64, 50256
WARM, UPDATES, WINDOWS = 3, 10, 8
Result = dict[str, Any]


def golden(options: argparse.Namespace) -> Result:
    """Compare float32 logits with those of the original code."""
    most = 0.0
    for name in ("tiny", "odd"):
        engine = open_engine(open_checkpoint(GOLDEN / name), device=options.device)
        numbers = np.load(GOLDEN / name / "golden.npz")
        rows = [row.tolist() for row in numbers["full_tokens"]]
        logits = np.stack([engine.forward([engine.new_sequence()], [row], "all") for row in rows])
        expected, part = ("full_logits", logits) if "full_logits" in numbers else ("full_logits_last", logits[:, -1])
        most = float(np.maximum(most, np.abs(part - numbers[expected]).max()))  # NaN stays
    return {"largest difference": most, "passed": most <= 1e-4}


def promise(options: argparse.Namespace) -> Result:
    """Compare a seed's tokens in batches of 1 and of many, past the end of a range of keys, in every precision."""
    n, length, name = (7, 20, GOLDEN / "tiny") if options.tiny else (64, 200, "tales")
    different = {}
    for precision in TORCH_PRECISIONS:
        engine = open_engine(open_checkpoint(name), device=options.device, precision=precision)
        together = texts(engine, range(n), length)
        some = range(0, n, max(1, n // 8))
        different[precision] = sum(texts(engine, [seed], length)[0] != together[seed] for seed in some)
    return {"different texts": different, "passed": not any(different.values())}


def cpu_and_gpu(options: argparse.Namespace) -> Result:
    """Count the seeds whose texts differ from the native engine's in float32, and where each first does."""
    seeds, length = (4, 20) if options.tiny else (50, 200)
    tales = open_checkpoint("tales")
    native, other = (texts(open_engine(tales, device=each), range(seeds), length) for each in ("cpu", options.device))
    found = [
        next(i for i in range(length) if one[i] != another[i])
        for one, another in zip(native, other, strict=True)
        if one != another
    ]
    return {"seeds": seeds, "tokens": length, "first differences": found, "passed": len(found) <= 2}


def resume(options: argparse.Namespace) -> Result:
    """Train in one go and in two parts, each in torchrun with one process, and compare the weights."""
    device = {"torch-cpu": "cpu"}.get(options.device, options.device)
    shape = ["--from_scratch", "--n_ctx", "32", "--n_embd", "32", "--n_head", "2", "--n_layer", "2", "--dropout", "0.1"]
    how = ["--steps", "6", "--device", device, "--precision", "float32", "--sample_every", "0"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m", "gpt2lab"]
    train = [*launch, "train", "--dataset", str(GOLDEN.parents[1] / "README.md"), *shape, *how]
    with tempfile.TemporaryDirectory() as folder:
        for run, more in (("whole", []), ("parts", ["--stop_after", "3"]), ("parts", [])):
            subprocess.run([*train, "--run_name", run, *more], cwd=folder, check=True, stdout=sys.stderr)
        whole, parts = (Path(folder, "checkpoint", run, "model.safetensors").read_bytes() for run in ("whole", "parts"))
    return {"passed": whole == parts}


def texts(engine: Engine, seeds: Any, length: int, prompt: int = 1, params: SamplingParams | None = None) -> Any:
    """Return ``length`` tokens drawn with each seed, all in one batch."""
    params = params or SamplingParams(temperature=0.8, top_k=40)
    sequences, n_vocab = [engine.new_sequence() for _ in seeds], engine.config.n_vocab
    fed = [[(7 * i * i + 3 * i) % n_vocab for i in range(prompt)] for _ in seeds]
    drawn: list[list[int]] = [[] for _ in seeds]
    for position in range(length):
        draws = [Draw(params, seed, 0, prompt + position) for seed in seeds]
        for text, [found] in zip(drawn, engine.step(sequences, fed, draws), strict=True):
            text.append(found.token)
        fed = [text[-1:] for text in drawn]
    for sequence in sequences:
        engine.free_sequence(sequence)
    return drawn


# ---- decoding: random weights in bfloat16, prompts of 512, greedy ----------------------------------------------------


def decode(options: argparse.Namespace, program: str, size: str, batch: int) -> Result:
    """Return the tokens per second of decode steps: of a long run less a short one, so without the prompt."""
    package = program.partition(" ")[0]
    if not importlib.util.find_spec(package):
        return {"skipped": f"{package} is not installed"}
    generate = PROGRAMS[program](options, size, batch)
    generate(2)
    rounds = []
    for _ in range(3):
        seconds = []
        for new in (2, 2 + options.new):
            begin = time.perf_counter()
            generate(new)
            seconds.append(time.perf_counter() - begin)
        rounds.append(batch * options.new / (seconds[1] - seconds[0]))
    return {"tokens_s": statistics.median(rounds), "least": min(rounds), "most": max(rounds)}


def ours(options: argparse.Namespace, size: str, batch: int, rows: int | None = None) -> Callable[[int], Any]:
    """gpt2lab; ``rows`` other than the usual number show what padding costs."""
    from gpt2lab.benchmarking import random_checkpoint
    from gpt2lab.engines.pytorch import TorchEngine

    checkpoint = open_checkpoint(GOLDEN / "tiny") if size == "tiny" else random_checkpoint(size)
    kinds = {"device": TORCH_DEVICES[options.device], "precision": "bfloat16", "kv_precision": "float16"}
    engine = TorchEngine(checkpoint, **kinds, rows=rows)
    return lambda new: texts(engine, range(batch), new, options.prompt, SamplingParams(temperature=0))


def transformers(options: argparse.Namespace, size: str, batch: int) -> Callable[[int], Any]:
    """Hugging Face transformers with a static cache, which it compiles for on a GPU."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    device = TORCH_DEVICES[options.device]
    model = GPT2LMHeadModel(GPT2Config(**hub_shape(size))).to(device, torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    ids = torch.randint(0, model.config.vocab_size, (batch, options.prompt), device=device)
    how = {"do_sample": False, "cache_implementation": "static", "attention_mask": torch.ones_like(ids)}

    def generate(new: int) -> None:
        with torch.inference_mode():
            model.generate(ids, max_new_tokens=new, **how).cpu()

    return generate


def vllm(options: argparse.Namespace, size: str, batch: int) -> Callable[[int], Any]:
    """vLLM, with random weights of its own."""
    import vllm

    folder = Path(tempfile.mkdtemp())
    about = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **hub_shape(size)}
    (folder / "config.json").write_text(json.dumps(about))
    model = vllm.LLM(str(folder), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16")
    rng = np.random.default_rng(0)
    prompts = [{"prompt_token_ids": rng.integers(0, N_VOCAB, options.prompt).tolist()} for _ in range(batch)]

    def generate(new: int) -> None:
        model.generate(prompts, vllm.SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False))

    return generate


def hub_shape(size: str) -> Result:
    """Return a size under the names of Hugging Face's ``config.json``."""
    config = open_checkpoint(GOLDEN / "tiny").config if size == "tiny" else RELEASED_SIZES[size]
    sizes = {name: getattr(config, name) for name in ("n_embd", "n_head", "n_layer")}
    return {"vocab_size": config.n_vocab, "n_positions": config.n_ctx, **sizes}


PROGRAMS: dict[str, Callable[[argparse.Namespace, str, int], Callable[[int], Any]]] = {
    "gpt2lab": ours,
    "gpt2lab unpadded": lambda options, size, batch: ours(options, size, batch, batch),
    "transformers": transformers,
    "vllm": vllm,
}


# ---- training in bfloat16: 124M, 8 windows of 1024 tokens; on a CPU, a tiny model ------------------------------------


def train(options: argparse.Namespace, program: str) -> Result:
    """Return the tokens per second of updates on random tokens, and the loss of the last: about ln n_vocab at least."""
    import torch

    if program == "nanogpt" and not (options.nanogpt and Path(options.nanogpt, "model.py").exists()):
        return {"skipped": f"no nanoGPT in {options.nanogpt}" if options.nanogpt else "nanoGPT: give --nanogpt FOLDER"}
    config = open_checkpoint(GOLDEN / "tiny").config if options.tiny else ModelConfig()
    model, optimizers, loss_of = (our_training if program == "gpt2lab" else nanogpt)(options, config)
    seconds = []
    for _ in range(WARM + UPDATES):
        x, y = torch.randint(0, config.n_vocab, (2, WINDOWS, config.n_ctx), device=TORCH_DEVICES[options.device])
        begin = time.perf_counter()
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        next(model.parameters()).flatten()[0].item()  # waits for the device
        seconds.append(time.perf_counter() - begin)
    speed = WINDOWS * config.n_ctx / statistics.median(seconds[WARM:])
    return {"tokens_s": speed, "first_s": seconds[0], "loss": loss.item()}


def our_training(options: argparse.Namespace, config: ModelConfig) -> tuple[Any, list[Any], Callable[..., Any]]:
    """gpt2lab's module and optimizer."""
    from gpt2lab.training.module import GPT2
    from gpt2lab.training.ops.compute import Compute
    from gpt2lab.training.optimizers import choose_trainable, make_optimizers
    from gpt2lab.training.settings import Settings

    model = GPT2(config, compute=Compute("bfloat16", "none")).to(TORCH_DEVICES[options.device]).train()
    choose_trainable(model, Settings())
    return model, make_optimizers(model, Settings()), lambda x, y: model(x, y) / x.numel()


def nanogpt(options: argparse.Namespace, config: ModelConfig) -> tuple[Any, list[Any], Callable[..., Any]]:
    """nanoGPT's model, compiled, with flash attention and its fused optimizer."""
    import torch

    sys.path.insert(0, options.nanogpt)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    device = TORCH_DEVICES[options.device]
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    model = GPT(GPTConfig(block_size=config.n_ctx, vocab_size=config.n_vocab, bias=True, **sizes)).to(device).train()
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), device)
    compiled = torch.compile(model)

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return compiled(x, y)[1]

    return model, [optimizer], loss_of


CHECKS = {"golden": golden, "promise": promise, "cpu_and_gpu": cpu_and_gpu, "resume": resume}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", help="a check, 'decode PROGRAM SIZE BATCH' or 'train PROGRAM'")
    parser.add_argument("--device", choices=list(TORCH_DEVICES), required=True)
    parser.add_argument("--nanogpt")
    options = parser.parse_args()
    options.tiny = options.device == "torch-cpu"
    options.prompt, options.new = (16, 16) if options.tiny else (PROMPT, NEW)
    kind, _, rest = options.part.partition(" ")
    if kind in CHECKS:
        result = CHECKS[kind](options)
    elif kind == "decode":
        program, size, batch = rest.rsplit(" ", 2)
        result = decode(options, program, size, int(batch))
    else:
        result = train(options, rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Memory: an estimate of what a training run needs, and settings that make a process handle it well.

Does not import torch, because :func:`prepare_process` must run before that import. This module knows nothing of what is
trained.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gpt2lab.config import ModelConfig
from gpt2lab.system.memory import map_blocks
from gpt2lab.training.settings import Settings

_MAPPED = 1 << 20  # bytes; blocks of at least this size get their own mapping
_FLOAT = 4  # bytes
_TORCH = 330 << 20  # bytes of torch, its libraries' buffers and NumPy in a process, measured on Linux
LOSS_ROWS, FROZEN_LOSS_ROWS = 256, 192  # as in ops.loss, which cannot be imported without torch
_COMPILER = 70 << 20  # bytes of PyTorch's compiler, which torch.optim's optimizers and several processes import
_SPINS = 2000  # turns of a waiting thread of GNU OpenMP: 20 to 100 microseconds, depending on the CPU
_FRAGMENTS = 1.02  # a factor for the gaps between tensors, measured


def prepare_process(threads: int | None = None) -> None:
    """Set up this process for training. Call it before torch is imported, or only a part takes effect.

    Waiting threads spin briefly and then sleep: updates of small models have many short loops, and longer spinning
    would take cores from other programs. glibc returns large blocks to the system at once and keeps no holes between
    them; memory that every update needs is in a :class:`~gpt2lab.training.ops.pool.Pool`. Without glibc that part does
    nothing. Variables that the user has set in the environment stay.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    map_blocks(_MAPPED)


@dataclass(frozen=True)
class MemoryEstimate:
    """The bytes that one process of a run needs at its peak, by purpose."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    torch: int
    total: int  # at the peak: gradients and activations do not all exist at the same time

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations", "loss", "torch")
        listed = ", ".join(f"{name} {_megabytes(getattr(self, name))}" for name in parts)
        return f"memory: about {_megabytes(self.total)} at the peak ({listed})"


def estimate(config: ModelConfig, settings: Settings, world_size: int = 1) -> MemoryEstimate:
    """Return what each of ``world_size`` processes needs to train ``config`` with ``settings`` (resolved ones)."""
    sharded = world_size if settings.parallel == "fsdp" else 1
    trained = _trained_parameters(config, settings)
    head_trained = not settings.lora and not settings.only_train_transformer_layers
    d_head = config.n_vocab * config.n_embd * _FLOAT if head_trained else 0
    weights = config.n_params * _FLOAT // sharded + (trained * _FLOAT if settings.lora else 0)
    weights += _versions(config, settings) * _FLOAT
    gradients = trained * _FLOAT // sharded
    optimizer = _optimizer_values(config, settings, trained) * _FLOAT // sharded
    rows = settings.batch_size * (settings.block_size or config.n_ctx)
    kept, layer = _activations(config, settings, rows)
    width = 2 if settings.precision == "bfloat16" else 4
    loss = min(rows, LOSS_ROWS if head_trained else FROZEN_LOSS_ROWS) * config.n_vocab * width
    if width == 2:
        loss += config.n_vocab * config.n_embd * (2 + _FLOAT * head_trained)  # matrix and products in both types
    at_loss = kept + loss + d_head + 2 * rows * config.n_embd * _FLOAT
    at_end = gradients + layer
    if settings.accumulate_gradients > 1 or world_size > 1:  # earlier gradients stay meanwhile
        at_loss += gradients
        at_end += d_head
    if settings.parallel == "fsdp" and world_size > 1:
        gathered = (config.n_vocab + config.n_ctx) * config.n_embd + _layer_matrices(config)
        at_loss += gathered * _FLOAT
    torch = _TORCH + _COMPILER * (world_size > 1 or settings.optimizer in ("sgd", "muon"))
    total = torch + int(_FRAGMENTS * (weights + optimizer + max(at_loss, at_end)))
    return MemoryEstimate(weights, gradients, optimizer, kept, loss, torch, total)


def _versions(config: ModelConfig, settings: Settings) -> int:
    """Return the number of averaged and of rounded weights."""
    matrices = config.n_embeddings * config.n_vocab * config.n_embd + config.n_layer * _layer_matrices(config)
    return config.n_params * (settings.average > 0) + matrices * (settings.quantize != "none")


def _trained_parameters(config: ModelConfig, settings: Settings) -> int:
    n, layers = config.n_embd, config.n_layer
    if settings.lora:
        mlp = n + config.mlp_width
        both = {"attn.proj": 2 * n, "mlp.fc": mlp, "mlp.proj": mlp}  # inputs and outputs of the matrices
        return layers * settings.lora * sum(both.get(target, 2 * n) for target in settings.targets())
    outside = (config.n_embeddings * config.n_vocab + config.n_ctx + 2) * n
    return config.n_params - (outside if settings.only_train_transformer_layers else 0)


def _layer_matrices(config: ModelConfig) -> int:
    """Return the number of weights in the matrices of a layer."""
    return (4 * config.n_embd + 2 * config.mlp_width) * config.n_embd


def _optimizer_values(config: ModelConfig, settings: Settings, trained: int) -> int:
    if settings.optimizer == "sgd":
        return 0
    if settings.optimizer == "muon" and not settings.lora:
        return 2 * trained - _layer_matrices(config) * config.n_layer  # one value of each matrix in a layer
    return 2 * trained


def _activations(config: ModelConfig, settings: Settings, rows: int) -> tuple[int, int]:
    """Return the bytes that the forward pass keeps, and those that a layer's backward pass needs in addition."""
    unit = rows * config.n_embd
    width = 2 if settings.precision == "bfloat16" else _FLOAT
    inner = rows * config.mlp_width
    layer = unit * (2 * _FLOAT + 3 * width) + inner * width  # two inputs; queries, keys, values; inside the MLP
    if not settings.lora or "attn.proj" in settings.targets():
        layer += unit * width  # attention's output, for the gradient of the projection's weight
    if settings.dropout:
        layer += unit * (2 + 2 * bool(settings.lora))
    transient = 3 * max(inner, 3 * unit) * width
    if settings.memory_saving_gradients:
        return (config.n_layer + 1) * unit * _FLOAT + layer, layer + transient
    return config.n_layer * layer + unit * _FLOAT, transient


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

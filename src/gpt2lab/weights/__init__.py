"""Checkpoints: one module per format, and one that finds checkpoints by name; see :func:`open_checkpoint`."""

from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, tensor_shapes
from gpt2lab.weights.convert import convert
from gpt2lab.weights.find import find_checkpoint, open_checkpoint

__all__ = ["Checkpoint", "TokenizerFiles", "convert", "find_checkpoint", "open_checkpoint", "tensor_shapes"]

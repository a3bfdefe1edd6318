"""Checkpoints: one module per format, one that finds them by name; see :func:`open_checkpoint`."""

from gpt2lab.weights.checkpoint import Checkpoint, TokenizerFiles, tensor_shapes
from gpt2lab.weights.find import open_checkpoint

__all__ = ["Checkpoint", "TokenizerFiles", "open_checkpoint", "tensor_shapes"]

"""Read tensors from files that only PyTorch can read (pickles), with ``weights_only=True`` so that no code runs.

This module knows no checkpoint format. Imports torch when called; if torch is missing, the error names the
alternatives.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from gpt2lab.errors import CheckpointError, first_line
from gpt2lab.weights.checkpoint import StoredTensor, Tensor, check_not_pointer

_DTYPES = {f"torch.{name}": name for name in ("float32", "float16", "bfloat16", "float64")}


def load_torch(path: Path) -> dict[str, Any]:
    """Load the dict that ``torch.save`` wrote to ``path``; tensors are memory-mapped if the file is new enough."""
    try:
        import pickle
        import warnings
        import zipfile

        import torch
    except ImportError:
        raise CheckpointError(
            f"{path}: this format needs PyTorch (pip install 'gpt2lab[train]'); safetensors files do not"
        ) from None
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: there is no such file")
    check_not_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch advises to run the file's code
            if zipfile.is_zipfile(path):
                value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with _Bounded(path.open("rb", buffering=0)) as file:
                    value = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: PyTorch cannot load it: it is damaged, or holds objects that could run code; "
            "save the model's state_dict, or use safetensors"
        ) from None
    except Exception as error:  # torch documents no error class for malformed files
        reason = first_line(error) or type(error).__name__
        raise CheckpointError(f"{path}: PyTorch cannot load it ({reason})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a dict of tensors")
    return value


def check_state_dict(path: Path, content: dict[Any, Any]) -> None:
    """Raise :class:`CheckpointError` unless ``content`` is a model's state_dict; the error says what it is instead."""
    import torch

    if any(isinstance(value, torch.Tensor) for value in content.values()):
        return
    if "pytorch-lightning_version" in content:
        what = "a PyTorch Lightning checkpoint"
    elif {"state", "param_groups"} <= content.keys():
        what = "an optimizer's state"
    else:
        what = f"a dict of {', '.join(short_repr(key) for key in list(content)[:6]) or 'nothing'}"
    raise CheckpointError(f"{path} holds {what}, not a model's state_dict: save that, with a config.json beside it")


class _Bounded(io.BufferedReader):
    """A file that allocates no more for a read than it has bytes, whatever a damaged pickle asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most ``size`` bytes."""
        return super().read(-1 if size is None else min(size, os.fstat(self.fileno()).st_size))


def stored_tensor(path: Path, name: str, value: Any, *, transposed: bool = False) -> tuple[StoredTensor, str]:
    """Return a reader of a torch tensor as float32, and its precision; ``transposed`` for a matrix ``[out, in]``."""
    import numpy as np
    import torch

    dtype = _DTYPES.get(str(value.dtype)) if isinstance(value, torch.Tensor) else None
    if dtype is None:
        raise CheckpointError(f"{path}: {name} is not a tensor of {', '.join(_DTYPES.values())}")
    if not _is_stored(value):
        raise CheckpointError(f"{path}: {name} of shape {list(value.shape)} claims more values than the file has")
    tensor = value.detach().T if transposed and value.dim() == 2 else value.detach()
    size = path.stat().st_size

    def read() -> Tensor:
        if (
            not path.exists() or path.stat().st_size < size
        ):  # PyTorch has mapped it, so reading it would end the process
            raise CheckpointError(f"{path} was cut short while it was open")
        return np.ascontiguousarray(tensor.float().numpy())

    return StoredTensor(tuple(tensor.shape), read), dtype


def is_same(one: Any, other: Any) -> bool:
    """Return whether two tensors, each checked by :func:`stored_tensor`, are equal; they nearly always share memory."""
    import torch

    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return bool(one.data_ptr() == other.data_ptr() or torch.equal(one, other))


def _is_stored(tensor: Any) -> bool:
    """Return whether a tensor's values are all in its storage; a stride of 0 repeats one of them without end."""
    if str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu":
        return False
    return bool(tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes())

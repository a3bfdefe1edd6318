"""The devices of this machine on which PyTorch computes. PyTorch is imported when one of them is requested."""

from __future__ import annotations

from importlib.util import find_spec

from gpt2lab.errors import UsageError, first_line


def present_device(name: str) -> str:
    """Return ``name``, a device of PyTorch, if it is available; for ``auto``, a GPU if there is one, otherwise ``cpu``.

    Raises :class:`~gpt2lab.errors.UsageError` if PyTorch or the device is missing, or if PyTorch cannot be imported.
    """
    if name == "auto":
        return next(iter(_gpus()), "cpu") if find_spec("torch") else "cpu"
    if not find_spec("torch"):
        raise UsageError(f"device {name} needs PyTorch: pip install 'gpt2lab[gpu]'")
    if name != "torch-cpu" and name not in _gpus():
        raise UsageError(f"device {name} is not available: PyTorch finds no such GPU; choose cpu or auto")
    return name


def _gpus() -> list[str]:
    """Return the names of the kinds of GPUs that PyTorch finds, the preferred one first."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library that it needs is missing, or of another version
        raise UsageError(f"PyTorch cannot be imported: {first_line(error)}") from error
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, is_there in found.items() if is_there]

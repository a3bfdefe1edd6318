"""Loading a checkpoint into a core: weights are packed once, and read from the cache at later starts.

A miss costs one pass over the checkpoint for its digest and one for packing; weights for which this does not pay
bypass the cache. The cache never makes a load fail: at worst a warning says that every start packs again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpt2lab import _native
from gpt2lab.engines import digests, packed_cache
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import UsageError
from gpt2lab.system import caches
from gpt2lab.weights.checkpoint import READERS, Checkpoint, LazyTensors, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_SIZE = 8 << 20
"""Bytes of packed weights below which packing takes no longer than a look-up in the cache."""

_PLACING_NOTHING = (
    *("activation", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
    "reorder_and_upcast_attn",
)
"""The switches of a model that change neither a weight nor its place, so that models may share an entry."""


class Core(Protocol):
    """The part of :class:`gpt2lab._native.Engine` that loads weights."""

    @property
    def packed_size(self) -> int:
        """Size of all packed weights in bytes."""

    @property
    def packed(self) -> memoryview:
        """All packed weights as bytes, readable and writable."""

    def set_tensor(self, name: str, values: Tensor, /) -> None:
        """Pack one tensor, named and shaped as in a checkpoint. Raises ValueError if the packed one is not finite."""

    def set_integers(self, name: str, q: NDArray[np.int8], scales: Tensor, factors: NDArray[np.int8] | None) -> None:
        """Pack the parts of :class:`~gpt2lab.weights.integers.Integers` as they are. Raises ValueError out of range."""

    def mark_loaded(self) -> None:
        """Mark all weights as set, after the caller has filled ``packed``."""


def load_weights(core: Core, checkpoint: Checkpoint, precision: str) -> None:
    """Fill ``core`` with the weights of ``checkpoint`` in ``precision``, from the cache if they are in it.

    Raises :class:`~gpt2lab.errors.CheckpointError` for a tensor that turns out to be corrupt when it is read,
    :class:`~gpt2lab.errors.UsageError` for one with numbers that ``precision`` cannot represent.
    """
    folder = packed_cache.default_folder() if _pays(core, checkpoint, precision) else None
    key = stamp = None
    if folder:
        with _warning_of(folder):
            caches.create(folder)
            stamp = digests.stamp(checkpoint.files)
            if tuple(status for _, *status in stamp) != tuple(map(list, checkpoint.opened)):
                folder = (
                    None  # the files were replaced: the tensors are still the old files', which no longer have a name
                )
            else:
                key = _key(folder, stamp, checkpoint, precision)
    if folder and key and packed_cache.read_entry(folder, key, core.packed):
        return core.mark_loaded()
    for name in checkpoint.tensors:
        try:
            _set(core, checkpoint.tensors, name, precision)
        except ValueError as error:
            raise UsageError(f"{checkpoint.path} cannot be held in {precision} ({error}): choose float32") from None
    if folder and key:
        from gpt2lab.engines.packed_entries import write_entry  # imported only here: most starts find their entry

        with _warning_of(folder):
            if digests.stamp(checkpoint.files) == stamp:  # else the packed contents are unknown
                write_entry(folder, key, core.packed, str(checkpoint.path.absolute()))
    return None


def _set(core: Core, tensors: Mapping[str, Tensor], name: str, precision: str) -> None:
    """Pack one tensor; only one at a time is in memory. What a file holds in ``precision`` is not rounded again."""
    integers = tensors.integers(name, precision) if isinstance(tensors, LazyTensors) else None
    if integers is None:
        core.set_tensor(name, tensors[name])
    else:
        core.set_integers(name, *integers)


def cached_precisions(checkpoint: Checkpoint) -> list[str]:
    """Return the precisions in which the cache has these weights, as far as can be known without reading them."""
    folder = packed_cache.default_folder()
    if folder is None:
        return []
    try:
        digest = digests.recorded_digest(folder, digests.stamp(checkpoint.files))
    except OSError:
        return []
    if digest is None:
        return []
    return [name for name in PRECISIONS if packed_cache.has_entry(folder, _key_of(digest, checkpoint, name))]


def _pays(core: Core, checkpoint: Checkpoint, precision: str) -> bool:
    """Return whether these weights are worth caching: float32 is packed as fast as it is read."""
    return bool(checkpoint.files) and precision != "float32" and core.packed_size >= LEAST_SIZE


def _key(folder: Path, stamp: digests.Stamp, checkpoint: Checkpoint, precision: str) -> packed_cache.Key | None:
    """Return the weights' key in the cache; None for files that have just changed or are changing."""
    if not digests.settled(stamp):
        return None
    digest = digests.recorded_digest(folder, stamp)
    if digest is None:
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # fail before reading gigabytes for nothing
        digest = digests.content_digest(checkpoint.files)
        if digests.stamp(checkpoint.files) != stamp:
            return None
        with suppress(OSError):  # writing the weights warns of it
            digests.record_digest(folder, stamp, digest)
    return _key_of(digest, checkpoint, precision)


def _key_of(digest: str, checkpoint: Checkpoint, precision: str) -> packed_cache.Key:
    placing = {name: int(v) for name, v in checkpoint.config.to_hparams().items() if name not in _PLACING_NOTHING}
    return packed_cache.Key(digest, precision, _native.PACKED_LAYOUT, READERS, placing)


@contextmanager
def _warning_of(folder: Path) -> Iterator[None]:
    """Turn an OSError into a warning that names ``folder``."""
    try:
        yield
    except OSError as error:
        import logging

        logging.getLogger("gpt2lab").warning(
            "gpt2lab: packed weights cannot be stored in %s (%s), so every start packs them again; "
            "set %s to another folder, or to off",
            folder,
            error.strerror or error,
            caches.VARIABLE,
        )

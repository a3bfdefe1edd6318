"""The origin of a text's numbers: everything that its keys, values and logits depend on besides its tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.engines import digests, packed_cache
from gpt2lab.engines.precision import machine_group, machine_of
from gpt2lab.errors import CheckpointError
from gpt2lab.version import CONTRACT
from gpt2lab.weights.checkpoint import READERS

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Origin:
    """Everything that numbers depend on besides tokens: of one origin, the same tokens give the same numbers."""

    contract: int
    """Version of the contract."""
    weights: str
    """Digest of the checkpoint's files and configuration."""
    precision: str
    kv_precision: str
    readers: int
    """Version of the code that reads checkpoints."""
    processors: str
    """The processors that compute the same bits: ``machine_group`` or ``machine_of`` in ``engines.precision``."""


def with_config(digest: str, config: ModelConfig) -> str:
    """Return a digest of files with tensors together with the configuration, which may be elsewhere or be given."""
    return hashlib.sha256(f"{digest} {json.dumps(config.to_hparams(), sort_keys=True)}".encode()).hexdigest()


def origin_of(checkpoint: Checkpoint, engine: Engine, precision: str, kv_precision: str) -> Origin:
    """Return the origin of what ``engine`` computes. Raises :class:`CheckpointError` if the weights cannot be read."""
    files = checkpoint.files
    try:
        stamp = digests.stamp(files)
        if [tuple(status) for _, *status in stamp] != [tuple(status) for status in checkpoint.opened]:
            raise CheckpointError(f"{checkpoint.path} has changed since it was opened: load it again")
        folder = packed_cache.default_folder()
        digest = folder and digests.recorded_digest(folder, stamp)
        digest = digest or digests.content_digest(files)
    except OSError as error:
        raise CheckpointError(f"cannot read {checkpoint.path}: {error.strerror or error}") from None
    kernels = getattr(engine, "instruction_set", None)
    processors = machine_group(precision, kernels) if kernels else machine_of(engine) or "reference"
    digest = with_config(digest, checkpoint.config)
    return Origin(CONTRACT, digest, precision, kv_precision, READERS, processors)

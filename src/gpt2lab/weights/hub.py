"""Models on the Hugging Face hub, and in its cache on this machine.

A model is named as on the hub, ``USER/MODEL``, by a released size or as ``distilgpt2``; a branch, tag or commit may
follow after ``@``. Only ``config.json``, the tokenizer's files and one kind of weights are fetched, never another
pickle than ``pytorch_model.bin``. ``huggingface_hub`` is imported only when something must be looked up or fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gpt2lab.config import canonical_size
from gpt2lab.errors import CheckpointError, DownloadError, Gpt2LabError, first_line
from gpt2lab.system.hashing import sha256_of
from gpt2lab.weights.checkpoint import parse_json, read_bytes
from gpt2lab.weights.formats import open_path
from gpt2lab.weights.huggingface_special import GENERATION, MORE_TEMPLATES, TOKENIZER_FILES
from gpt2lab.weights.huggingface_weights import WEIGHT_FILES

HUB_REPOSITORIES = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
"""The Hugging Face hub's repositories of the released sizes."""

_WITHOUT_OWNER = {"distilgpt2": "distilbert/distilgpt2"}
"""Names that the hub knows without an owner; all others need one, so that a misspelt name asks no server."""

_CONFIG = "config.json"
_EXTRAS = (*TOKENIZER_FILES, GENERATION)
_TEMPLATE = re.compile(rf"{MORE_TEMPLATES}/\w[\w.-]*\.jinja", re.ASCII)

_TOKENIZERS = (
    "tokenizer.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files that hold a tokenizer, or its last part."""

_PART = r"[A-Za-z0-9_](?:[\w.-]*\w)?"
_NAME = re.compile(rf"(?P<repository>{_PART}(?:/{_PART})?)(?:@(?P<revision>[\w.][\w./-]*))?", re.ASCII)
_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".index", ".json", ".h5", ".onnx")
"""Ends of names that mean files, never repositories."""


@dataclass(frozen=True)
class HubModel:
    """A model on the hub."""

    name: str
    """The name that the user gave."""
    repository: str
    revision: str | None = None
    """A branch, tag or commit; None: the default branch."""
    size: str | None = None
    """The released size that it is, if any."""


def hub_model(name: str) -> HubModel | None:
    """Return the model on the hub that ``name`` can mean, or None if it cannot mean one."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name or "--" in found["repository"] or name.lower().endswith(_FILES):
        return None
    repository, revision = found["repository"], found["revision"]
    if "/" in repository:
        size = next((size for size, known in HUB_REPOSITORIES.items() if known == repository), None)
        return HubModel(name, repository, revision, size)
    if (size := canonical_size(repository)) is not None:
        return HubModel(name, HUB_REPOSITORIES[size], revision, size)
    known = _WITHOUT_OWNER.get(repository)
    return HubModel(name, known, revision) if known else None


# ---- the cache ------------------------------------------------------------------------------------------------------


def in_hub_cache(model: HubModel) -> Path | None:
    """Return the folder of a model in Hugging Face's cache, or None if it is not, or only partly, found there.

    This needs no ``huggingface_hub``, whose import takes longer than all the rest of a start. If it finds nothing,
    :func:`find_or_download` asks ``huggingface_hub`` again.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return _in_cache(Path(os.path.expandvars(hub)), model)


def _in_cache(cache: Path, model: HubModel) -> Path | None:
    try:
        repository = cache.expanduser() / f"models--{model.repository.replace('/', '--')}"
        reference = repository / "refs" / (model.revision or "main")
        commit = reference.read_text(encoding="ascii") if reference.is_file() else model.revision or "main"
        folder = repository / "snapshots" / commit
        if (folder / _CONFIG).is_file() and _has_weights(folder) and _tokenizer_is_known(repository, commit, model):
            return folder
    except (OSError, ValueError, RuntimeError, CheckpointError):
        pass
    return None


def _has_weights(folder: Path) -> bool:
    name = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if name is None or (".bin" in name and find_spec("torch") is None):
        return False
    return all((folder / shard).is_file() for shard in _shards(folder / name))


def _tokenizer_is_known(repository: Path, commit: str, model: HubModel) -> bool:
    """Return whether the cache has the tokenizer, or it is known that the repository has none.

    Another program may have fetched only the weights. Without this, GPT-2's tokenizer would be assumed.
    """
    if model.size is not None:
        return True
    absent = repository / ".no_exist" / commit / _TOKENIZERS[0]
    return absent.is_file() or any((repository / "snapshots" / commit / name).is_file() for name in _TOKENIZERS)


def _shards(path: Path) -> list[str]:
    """Return the files that an index names; none for a file of weights."""
    if not path.name.endswith(".index.json"):
        return []
    names = parse_json(path, read_bytes(path)).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{path}: weight_map must name a file for each tensor")
    return sorted(set(names.values()))


# ---- the hub --------------------------------------------------------------------------------------------------------


def find_or_download(model: HubModel) -> Path:
    """Return the folder of a model in Hugging Face's cache; download it first if it is not there."""
    from huggingface_hub import constants

    if (cached := _in_cache(Path(constants.HF_HUB_CACHE), model)) is not None:
        return cached
    for path in hub_files(model, None):
        folder = path.parent
    check_download(folder)
    return folder


def hub_files(model: HubModel, folder: Path | None, have: Collection[str] = ()) -> Iterator[Path]:
    """Get the files of a model into ``folder`` or the hub's cache, one after the other, without those of ``have``.

    Weights are checked against the SHA-256 that the hub reports. Raises :class:`CheckpointError` before any weights
    are fetched if the repository's model is none that gpt2lab runs, :class:`DownloadError` if something cannot be got.
    """
    commit, digests = _listing(model)
    weights = _kind_of_weights(model, digests)
    config = _get(model, _CONFIG, commit, folder)
    try:
        _check_config(model, config)
    except CheckpointError:
        if folder is not None:  # the cache is other programs' too
            config.unlink()
        raise
    if _CONFIG not in have:
        yield config
    templates = sorted(name for name in digests if _TEMPLATE.fullmatch(name))
    for name in (*_EXTRAS, *templates):
        if name in digests and name not in have:
            yield _get(model, name, commit, folder)
    if folder is None and not any(name in digests for name in _TOKENIZERS):
        _remember_absence(model, commit)
    names = [weights]
    for name in names:  # grows by the files that an index names
        path = config.parent / name if name in have else _get(model, name, commit, folder, digests.get(name))
        if name not in have:
            yield path
        for shard in _shards(path):
            if shard not in digests or "/" in shard:
                raise CheckpointError(f"{weights} of {model.repository} names {shard!r}, which the repository lacks")
            names.append(shard)


def _listing(model: HubModel) -> tuple[str | None, Mapping[str, str | None]]:
    """Ask the hub for a model's commit and its files, each with its SHA-256 if the hub states one.

    This comes first: without a network it fails at once, while a download retries for half a minute.
    """
    from huggingface_hub import HfApi

    with _hub_errors(model, "the list of files"):
        info = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True, timeout=10)
        return info.sha, {each.rfilename: each.lfs.sha256 if each.lfs else None for each in info.siblings or []}


def _kind_of_weights(model: HubModel, files: Collection[str]) -> str:
    """Return the name of the weights to fetch. Raises :class:`CheckpointError` if there are none that can be used."""
    weights = next((name for name in WEIGHT_FILES if name in files), None)
    if weights is None or _CONFIG not in files or "adapter_config.json" in files:
        raise CheckpointError(f"{model.repository} on the Hugging Face hub {_otherwise(files)}")
    if ".bin" in weights and find_spec("torch") is None:
        raise CheckpointError(
            f"{model.repository} on the Hugging Face hub has its weights only in {weights}, which PyTorch reads: "
            "install it with pip install 'gpt2lab[train]'"
        )
    return weights


def _otherwise(files: Collection[str]) -> str:
    """Describe a repository without a checkpoint that can be fetched, and say what to do."""
    if "adapter_config.json" in files:
        return "holds a PEFT adapter: merge it into its base model with peft (merge_and_unload), and give that folder"
    if gguf := sorted(name for name in files if name.endswith(".gguf")):
        return f"has GGUF files: download one, such as {gguf[0]}, and give its path"
    missing = _CONFIG if _CONFIG not in files else f"weights ({WEIGHT_FILES[0]} or {WEIGHT_FILES[2]})"
    others = sorted(name for name in files if name.endswith((".h5", ".onnx", ".msgpack", ".ot", ".ckpt")))
    return f"has no {missing}" + (f"; its {others[0]} is in a format that gpt2lab does not read" if others else "")


def _check_config(model: HubModel, config: Path) -> None:
    from gpt2lab.weights.huggingface import check_config

    try:
        check_config(config)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{config}: ")
        raise CheckpointError(
            f"{model.repository} on the Hugging Face hub is not a model that gpt2lab runs: {reason}"
        ) from None


def _get(model: HubModel, name: str, commit: str | None, folder: Path | None, sha256: str | None = None) -> Path:
    from huggingface_hub import hf_hub_download

    # The configuration is got by its branch or tag, so that the cache remembers which commit that was.
    revision = model.revision if name == _CONFIG else commit
    with _hub_errors(model, name):
        path = Path(hf_hub_download(model.repository, name, revision=revision, local_dir=folder))
    if sha256 is not None and sha256_of(path) != sha256:
        _discard(path)
        raise DownloadError(
            f"{name} of {model.repository} does not have the SHA-256 that the hub states, {sha256}; try again"
        )
    return path


def _remember_absence(model: HubModel, commit: str | None) -> None:
    """Let the hub's client note in its cache that the repository has no tokenizer, so that a later start is offline."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with _hub_errors(model, _TOKENIZERS[0]):
        try:
            hf_hub_download(model.repository, _TOKENIZERS[0], revision=commit)
        except EntryNotFoundError:
            return


def _discard(path: Path) -> None:
    """Delete a file that was just fetched; in the hub's cache it is a link into the repository's folder of contents."""
    contents = path.resolve()
    if path.is_symlink() and contents.parent == path.parent.parent.parent.resolve() / "blobs":
        contents.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextmanager
def _hub_errors(model: HubModel, what: str) -> Iterator[None]:
    """Turn any error of the hub's client into one line; its version decides whether httpx or requests raises it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = "the Hugging Face hub"
    log_in = "`hf auth login` or HF_TOKEN"
    try:
        yield
    except Gpt2LabError:
        raise
    except GatedRepoError:
        problem = f"{model.repository} on {hub} is gated: accept its terms on its page there, then use {log_in}"
    except RepositoryNotFoundError:
        problem = (
            f"no model at {model.name}: there is no such path here, and {hub} has no repository {model.repository} "
            f"that you may read; check the name, or use {log_in} if it is private"
        )
    except RevisionNotFoundError:
        problem = f"{model.repository} on {hub} has no revision {model.revision}: give a branch, a tag or a commit"
    except OfflineModeIsEnabled:
        problem = _unreachable(model, what, "HF_HUB_OFFLINE forbids it")
    except Exception as error:
        problem = _unreachable(model, what, first_line(error) or type(error).__name__)
    else:
        return
    raise DownloadError(problem) from None


def _unreachable(model: HubModel, what: str, reason: str) -> str:
    problem = f"cannot get {what} of {model.repository} from the Hugging Face hub ({reason}); is this machine online?"
    if model.size is not None:
        problem += f" Another way is `gpt2lab download {model.size} --source openai`;"
    else:
        problem += f" {model.name} is neither a path here nor complete in the hub's cache;"
    return f"{problem} the built-in `tales` needs no download"


def check_download(folder: Path) -> None:
    """Open the downloaded checkpoint; reading TensorFlow's files also checks the checksum of each tensor."""

    try:
        checkpoint = open_path(folder)
        if checkpoint.format == "openai":
            for name in checkpoint.tensors:
                checkpoint.tensors[name]
    except CheckpointError as error:
        raise DownloadError(f"the download is not a usable model: {error}") from None

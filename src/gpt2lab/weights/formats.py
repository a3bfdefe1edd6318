"""Open a checkpoint by its files, never by the folder's name: a file is read by its first bytes, and alone.

A folder may also be one that contains a checkpoint: the hub's cache of a repository, or the output of transformers'
Trainer. Each format's module is imported when it is needed. This module knows nothing of names or downloads.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, parse_json, read_bytes, read_text, unreadable

_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "ADAPTION_PROMPT")
"""PEFT's adapters that add inputs instead of changing weights, so nothing can be merged."""


def open_path(path: Path, activation: str | None = None) -> Checkpoint:
    """Open the checkpoint in a folder or file, whichever format it has.

    ``activation`` is that of a file that does not record it. Raises :class:`CheckpointError` if the file says another.
    """
    checkpoint = _open(path)
    if activation is None:
        note = checkpoint.activation_assumed
        return replace(checkpoint, notes=(*checkpoint.notes, note)) if note else checkpoint
    config = replace(checkpoint.config, activation=activation)
    if checkpoint.activation_assumed is None and config != checkpoint.config:
        raise CheckpointError(
            f"{path}: the file records the activation {checkpoint.config.activation}, not {activation}; "
            "leave out the activation"
        )
    return replace(checkpoint, config=config)


def _open(path: Path) -> Checkpoint:
    if path.exists() and not path.is_dir() and not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() and path.suffix != ".index":
        return _open_file(path)
    from gpt2lab.weights.openai import read_openai

    return read_openai(path)


def _open_file(path: Path) -> Checkpoint:
    if _is_gguf(path):
        from gpt2lab.weights.gguf import read_gguf

        return read_gguf(path)
    from gpt2lab.weights import file_kinds  # most starts open the GGUF file of tales

    kind = file_kinds.kind_of(path)
    if path.name.startswith("adapter_model."):
        _refuse_adapter(path)
    if kind is file_kinds.LLM_C:
        from gpt2lab.weights.llmc import read_llmc

        return read_llmc(path)
    if kind is file_kinds.TORCH:
        from gpt2lab.weights.nanogpt import is_nanogpt, read_nanogpt
        from gpt2lab.weights.torch_file import check_state_dict, load_torch

        content = load_torch(path)
        if is_nanogpt(content):
            return read_nanogpt(path, content)
        check_state_dict(path, content)
    if not (path.parent / "config.json").is_file():
        raise CheckpointError(f"{path} is {kind.name}; put the model's config.json beside it")
    from gpt2lab.weights.huggingface import read_huggingface

    return read_huggingface(path.parent, path)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise unreadable(path, error) from None


def _open_folder(folder: Path) -> Checkpoint:
    if (folder / "snapshots").is_dir():
        return _open_folder(_snapshot(folder))
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            _refuse_adapter(folder / name)
    described = (folder / "config.json").is_file()
    if described:
        from gpt2lab.weights.huggingface import read_huggingface
        from gpt2lab.weights.huggingface_weights import has_weights

        if has_weights(folder):
            return read_huggingface(folder)
    from gpt2lab.weights.openai import is_openai, read_openai

    if is_openai(folder):
        return read_openai(folder)
    files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("ckpt.pt"))
    if len(files) == 1:
        return _open(files[0])
    if files:
        raise CheckpointError(f"{folder} holds {len(files)} .gguf files: give the path of one")
    if saved := _trainer_checkpoints(folder):
        checkpoint = _open_folder(saved[0])
        note = f"{folder}: the model is read from {saved[0].name}, the only checkpoint there"
        return replace(checkpoint, notes=(note, *checkpoint.notes))
    what = "a config.json but no weights (model.safetensors)" if described else "no checkpoint in a known format"
    from gpt2lab.weights.file_kinds import found_in

    found = found_in(folder)
    raise CheckpointError(f"{folder} holds {what}" + (f"; found {found}" if found else ""))


def _refuse_adapter(path: Path) -> NoReturn:
    """Refuse a PEFT adapter, whose folder ``path`` is in, whether its base model is there too or not."""
    file = path.parent / "adapter_config.json"
    values = parse_json(file, read_bytes(file)) if file.is_file() else {}
    kind, base = values.get("peft_type"), values.get("base_model_name_or_path")
    if kind in _PROMPTS:
        advice = "it cannot be merged into weights, so gpt2lab cannot use it"
    else:
        merging = f"AutoPeftModelForCausalLM.from_pretrained({str(path.parent)!r}).merge_and_unload()"
        advice = f"merge it with peft, {merging}.save_pretrained(NEW), and give NEW"
    raise CheckpointError(
        f"{path} is a PEFT adapter ({kind or 'of unknown type'}) for {base or 'an unnamed model'}: {advice}"
    )


def _snapshot(repository: Path) -> Path:
    """Return the folder of the revision that the hub's cache of a repository has: ``main``, or else the only one."""
    reference = repository / "refs" / "main"
    if reference.is_file():
        revision = read_text(reference).strip()
        if revision in ("", ".", "..") or "/" in revision or "\\" in revision or "\0" in revision:
            raise CheckpointError(f"{reference}: {revision!r} is not the name of a snapshot")
        return repository / "snapshots" / revision
    found = sorted(path for path in (repository / "snapshots").iterdir() if path.is_dir())
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:9]) or "none"
        raise CheckpointError(f"{repository}: refs/main does not name a snapshot; give the path of one ({names})")
    return found[0]


def _trainer_checkpoints(folder: Path) -> list[Path]:
    """Return the only ``checkpoint-N`` of a Trainer's output folder, in a list; none if there is none."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    found.sort(key=lambda path: int(path.name.removeprefix("checkpoint-")))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:9]) + (", …" if len(found) > 9 else "")
        raise CheckpointError(f"{folder} holds {len(found)} checkpoints of a Trainer: give the path of one ({names})")
    return found

"""The readers to fuzz: for each, how to write a spoilt file, and how to read it.

A target is made in an empty folder. ``write(random)`` puts one case there, ``read()`` reads it as the program does.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from mutations import NUMBERS, json_bytes, spoilt, spoilt_json, spoilt_text

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights import Checkpoint, TokenizerFiles, convert, open_checkpoint, tensor_shapes
from gpt2lab.weights.formats import open_path
from tf_bundle import table, write_bundle

CONFIG = ModelConfig(n_vocab=5, n_ctx=2, n_embd=4, n_head=2, n_layer=1)
TENSORS = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(CONFIG).items()}
OWN = TokenizerFiles({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])
MADE = Checkpoint(CONFIG, TENSORS, OWN, "test", "float32", Path("made"))
BYTES = Tokenizer.from_files({**dict(zip([*Tokenizer.gpt2().encoder()][:256], range(256))), "<|endoftext|>": 256}, [])  # noqa: B905
TEXT = "It's a text; of 3 words,\nand two lines. <|endoftext|>Another é 日 😀 document\n" * 3
ROWS = [{"text": "one two"}, {"text": "three\n4"}, {"prompt": "a", "completion": "b", "text": "c", "n": [1, {}]}]
Spoil = Callable[[Random, bytes], bytes]


class Files:
    """A folder of good files, of which each case spoils one."""

    def __init__(self, folder: Path, spoil: Mapping[str, Spoil]) -> None:
        self.folder = folder
        self._spoil = spoil
        self._good = {name: (folder / name).read_bytes() for name in spoil}
        self._spoilt: str | None = None

    def write(self, random: Random) -> None:
        if self._spoilt is not None:
            (self.folder / self._spoilt).write_bytes(self._good[self._spoilt])
        self._spoilt = name = random.choice(list(self._spoil))
        (self.folder / name).write_bytes(self._spoil[name](random, self._good[name]))


def as_json(random: Random, data: bytes) -> bytes:
    return json_bytes(random, json.loads(data))


def as_text(random: Random, data: bytes) -> bytes:
    if random.random() < 0.3:
        return spoilt(random, data)
    return spoilt_text(random, data.decode()).encode("utf-8", "replace")


def as_safetensors(random: Random, data: bytes) -> bytes:
    """Spoil the header as JSON, or any byte."""
    if random.random() < 0.3:
        return spoilt(random, data)
    size = int.from_bytes(data[:8], "little")
    header = as_json(random, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> Callable[[], None]:
    def read() -> None:
        dict(open_path(path).tensors)  # unlike open_checkpoint, prints no notes

    return read


def gguf(folder: Path) -> Any:
    convert(MADE, folder / "m.gguf")
    return Files(folder, {"m.gguf": spoilt}).write, read_checkpoint(folder / "m.gguf")


def gguf_quantized(folder: Path) -> Any:
    """Let the gguf package write types, special tokens and an output matrix that ``convert`` does not."""
    import gguf

    config = ModelConfig(n_vocab=5, n_ctx=2, n_embd=32, n_head=2, n_layer=1, tie_word_embeddings=False)
    writer = gguf.GGUFWriter(folder / "m.gguf", "gpt2")
    writer.add_name("Cerebras-GPT")
    writer.add_block_count(1), writer.add_context_length(2), writer.add_embedding_length(32)
    writer.add_feed_forward_length(128), writer.add_head_count(2), writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b", "ab", "<|endoftext|>", "<|user|>"]), writer.add_token_types([1, 1, 1, 3, 4])
    writer.add_token_merges(["a b"]), writer.add_chat_template("{{ messages }}")
    writer.add_eos_token_id(3), writer.add_bos_token_id(3), writer.add_add_bos_token(True)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 1)
    for name, shape in tensor_shapes(config).items():
        theirs = names.get_name(name if name.startswith("lm_head") else f"transformer.{name}", (".weight", ".bias"))
        values = np.ones(shape[::-1] if name.startswith("h.") else shape, np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1 if name == "lm_head.weight" else gguf.GGMLQuantizationType.Q5_0
        if values.ndim == 2 and name != "wpe.weight":
            writer.add_tensor(theirs, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    return Files(folder, {"m.gguf": spoilt}).write, read_checkpoint(folder / "m.gguf")


def huggingface(folder: Path) -> Any:
    convert(MADE, folder / "m")
    (folder / "m" / "merges.txt").write_text("#version: 0.2\na b\n")
    files = {"config.json": as_json, "vocab.json": as_json, "merges.txt": as_text, "model.safetensors": as_safetensors}
    return Files(folder / "m", files).write, read_checkpoint(folder / "m")


def switches(folder: Path) -> Any:
    """Write a folder whose ``config.json`` has every switch of GPT-2's family."""
    config = replace(
        MADE.config,
        activation="gelu",
        n_inner=5,
        layer_norm_epsilon=1e-6,
        scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
        tie_word_embeddings=False,
    )
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    convert(replace(MADE, config=config, tensors=tensors), folder / "m")
    files = {"config.json": as_json, "model.safetensors": as_safetensors}
    return Files(folder / "m", files).write, read_checkpoint(folder / "m")


def int8(folder: Path) -> Any:
    return integers(folder, "int8")


def int4(folder: Path) -> Any:
    return integers(folder, "int4")


def integers(folder: Path, precision: str) -> Any:
    convert(MADE, folder / "m", precision=precision)
    files = {"config.json": as_json, f"weights-{precision}.safetensors": as_safetensors}
    return Files(folder / "m", files).write, read_checkpoint(folder / "m")


def tokenizer_json(folder: Path) -> Any:
    convert(MADE, folder / "m")
    for name in ("vocab.json", "merges.txt"):
        (folder / "m" / name).unlink()
    return Files(folder / "m", {"tokenizer.json": as_json}).write, read_checkpoint(folder / "m")


def tensorflow(folder: Path) -> Any:
    write_bundle(folder, MADE)
    (folder / "encoder.json").write_text(json.dumps(OWN.encoder))
    (folder / "vocab.bpe").write_text("#version: 0.2\na b\n")

    def index(random: Random, data: bytes) -> bytes:
        """Spoil any byte, or an entry behind right checksums."""
        if random.random() < 0.4:
            return spoilt(random, data)
        found = {name: bytes(value) for name, value in entries.items()}
        name = random.choice(list(found))
        found[name] = spoilt(random, found[name])
        if random.random() < 0.2:
            found[spoilt(random, name)] = found.pop(name)
        pairs = sorted(found.items())
        compress = random.random() < 0.3
        return table(pairs, compress=compress, per_block=random.choice([1, 5, 50]))

    from gpt2lab.weights.checkpoint import MappedFile
    from gpt2lab.weights.leveldb import read_table

    entries = read_table(MappedFile(folder / "model.ckpt.index"))
    files = {"model.ckpt.index": index, "checkpoint": as_text, "hparams.json": as_json, "encoder.json": as_json}
    weights = {"vocab.bpe": as_text, "model.ckpt.data-00000-of-00001": spoilt}
    return Files(folder, {**files, **weights}).write, read_checkpoint(folder)


def snappy(folder: Path) -> Any:
    from gpt2lab.weights.leveldb import unsnappy
    from tf_bundle import snappy as compressed

    held = [b""]

    def write(random: Random) -> None:
        held[0] = spoilt(random, compressed(random.choice([b"abcd" * 40, TEXT.encode(), bytes(500)])))

    def read() -> None:
        with suppress(ValueError, IndexError):  # documented
            unsnappy(held[0])

    return write, read


def llmc(folder: Path) -> Any:
    path = folder / "gpt2.bin"
    header = np.zeros(256, np.int32)
    header[:8] = 20240326, 3, CONFIG.n_ctx, CONFIG.n_vocab, CONFIG.n_layer, CONFIG.n_head, CONFIG.n_embd, CONFIG.n_vocab
    good = header.tobytes() + b"".join(tensor.tobytes() for tensor in TENSORS.values())

    def write(random: Random) -> None:
        """Spoil any byte, or a number of the header that is read."""
        changed = header.copy()
        if random.random() < 0.6:
            changed[random.randrange(1, 8)] = random.choice([*(n for n in NUMBERS if n < 2**31), -1, -(2**31), 2, 3, 5])
            path.write_bytes(changed.tobytes() + good[1024:])
        else:
            path.write_bytes(spoilt(random, good))

    return write, read_checkpoint(path)


def unknown_files(folder: Path) -> Any:
    """Files of any kind, by their first bytes, which are spoilt too, in a folder or by their path."""
    from gpt2lab.weights.file_kinds import _MARKS, found_in, kind_of

    marks = [bytes(offset) + mark for offset, mark, _ in _MARKS]
    marks += [b"PK\3\4", b"\x80\4", b"\x08\x08\x12", b"<html>", b'{"a": 1}', b"", bytes(8) + b"{"]
    names = ["m.bin", "m.pt", "model.safetensors", "m.msgpack", "m.index.json", "m.bin.index.json", "m.meta", "m.h5"]
    case = [folder]
    convert(MADE, folder / "m.gguf")
    good = (folder / "m.gguf").read_bytes()

    def write(random: Random) -> None:
        for path in folder.iterdir():
            path.unlink()
        case[0] = folder / random.choice(names)
        mark = random.choice(marks)
        start = spoilt(random, mark) if random.random() < 0.5 else mark
        case[0].write_bytes(good if random.random() < 0.1 else start + random.randbytes(40))
        if random.random() < 0.5:
            (folder / "config.json").write_bytes(json_bytes(random, {"model_type": "gpt2", "architectures": ["GPT2"]}))

    def read() -> None:
        found_in(folder)
        with suppress(CheckpointError):
            kind_of(case[0])
        dict(open_checkpoint(case[0]).tensors)

    return write, read


def torch_files(folder: Path) -> Any:
    import torch

    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 2, "vocab_size": 5, "bias": True}
    state = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    torch.save({"model": state, "model_args": arguments}, folder / "ckpt.pt")
    convert(MADE, folder / "m")
    (folder / "m" / "model.safetensors").unlink()
    torch.save(state, folder / "m" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    new, old = (folder / "ckpt.pt").read_bytes(), (folder / "m" / "pytorch_model.bin").read_bytes()
    case = ["", b""]

    def write(random: Random) -> None:
        name = random.choice(["ckpt.pt", "ckpt.pt", "m/pytorch_model.bin"])
        data = spoilt_zip(random, new) if name == "ckpt.pt" else spoilt(random, old)
        (folder / name).write_bytes(data)
        case[:] = [name, data]

    def read() -> None:
        dict(open_checkpoint(folder / "ckpt.pt" if case[0] == "ckpt.pt" else folder / "m").tensors)

    return write, read


# ---- answers --------------------------------------------------------------------------------------------------------


def answers(folder: Path) -> Any:
    """Spoil an answers file, and check a tiny model with those answers that need neither the network nor PyTorch."""
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.model import LanguageModel
    from gpt2lab.verifying import PUBLISHED
    from gpt2lab.verifying.answers import read_answers
    from gpt2lab.verifying.subject import Subject

    config = ModelConfig(n_vocab=257, n_ctx=64, n_embd=4, n_head=2, n_layer=1)
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    checkpoint = Checkpoint(config, tensors, None, "test", "float32", folder)
    subject = Subject(LanguageModel(Engines(checkpoint, device="reference"), BYTES), published=True)
    shorter = {"text": "abc", "context": "a", "continuation": "b", "prompt": "a", "batch": 2, "time": 8}
    shorter |= {"ids": [1, 2], "logits": {"0": 1.5, "7": 2}}
    checks = [
        {name: shorter.get(name, value) for name, value in answer.items()}
        for answer in json.loads(PUBLISHED.read_bytes())["models"]["124M"]
    ]
    texts = {"tinyshakespeare": ["a" * 70]}
    (folder / "answers.json").write_text(json.dumps({"texts": texts, "models": {"124M": checks}}))

    def read() -> None:
        for answer in read_answers(folder / "answers.json", "124M", checkpoint):
            if answer.kind not in ("benchmark", "debug_state", "adamw"):
                answer.check.check(subject)

    return Files(folder, {"answers.json": as_json}).write, read


# ---- archives and datasets ------------------------------------------------------------------------------------------


def spoilt_zip(random: Random, data: bytes) -> bytes:
    """Spoil a member behind a right checksum, or any byte."""
    if random.random() < 0.4:
        return spoilt(random, data)
    out = io.BytesIO()
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", method) as new:
        victim = random.choice(old.namelist())
        for info in old.infolist():
            content = old.read(info)
            name = info.filename
            if name == victim and random.random() < 0.15:
                name = random.choice(
                    ["", "/", "..", "../x.txt", "\0.txt", "é.txt", "a/", "\x1b.txt", "x" * 300 + ".txt"]
                )
            elif name == victim:
                content = spoilt(random, content)
            new.writestr(zipfile.ZipInfo(name or "a"), content, method)
    data = out.getvalue()
    return spoilt(random, data) if random.random() < 0.3 else data


def read_dataset(path: Path, **reading: str) -> Callable[[], None]:
    from gpt2lab.data.counts import count
    from gpt2lab.data.files import Reading
    from gpt2lab.data.open import open_documents

    def read() -> None:
        documents = open_documents([str(path)], BYTES, reading=Reading(**reading), jobs=1)  # type: ignore[arg-type]
        count(documents, BYTES)

    return read


def npz(folder: Path) -> Any:
    path = folder / "a.npz"
    np.savez_compressed(path, np.asarray(BYTES.encode(TEXT)), np.arange(200, dtype=np.int32))
    good = path.read_bytes()

    def write(random: Random) -> None:
        path.write_bytes(spoilt_zip(random, good))

    return write, read_dataset(path)


def npy_headers(folder: Path) -> Any:
    path = folder / "a.npz"
    header = "{'descr': '<u2', 'fortran_order': False, 'shape': (50,), }"

    def write(random: Random) -> None:
        text = spoilt_text(random, header).encode("latin-1", "replace")
        version = random.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\7\0"])
        size = (
            len(text).to_bytes(2 if version == b"\1\0" else 4, "little", signed=False)
            if len(text) < 2**16
            else b"\xff\xff"
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("arr_0.npy", b"\x93NUMPY" + version + size + text + bytes(100))

    return write, read_dataset(path)


def zip_archive(folder: Path) -> Any:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", TEXT)
        archive.writestr("b/c.jsonl", "\n".join(map(json.dumps, ROWS)))
        archive.writestr("d.csv", "id,text\n1,a b\n2,c\n")
    good = path.read_bytes()

    def write(random: Random) -> None:
        path.write_bytes(spoilt_zip(random, good))

    return write, read_dataset(path)


def tar_archive(folder: Path) -> Any:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.txt", "é" * 60 + ".txt", "x" * 120 + ".txt"):
            info = tarfile.TarInfo(name)
            info.size = len(TEXT.encode())
            archive.addfile(info, io.BytesIO(TEXT.encode()))
    good = out.getvalue()[: -512 * 12]
    pack = {"tar": bytes, "tgz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
    case = ["tar"]

    def write(random: Random) -> None:
        case[0] = random.choice(list(pack))
        inside = random.random() < 0.6
        data = pack[case[0]](_spoilt_tar(random, good) if inside else good)
        (folder / f"a.{case[0]}").write_bytes(data if inside else spoilt(random, data))

    return write, lambda: read_dataset(folder / f"a.{case[0]}")()


def _spoilt_tar(random: Random, data: bytes) -> bytes:
    """Spoil any byte, then correct the checksum of each header that begins a block of 512."""
    out = bytearray(spoilt(random, data))
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % (sum(out[at : at + 512]) & 0o777777)
    return bytes(out)


def dataset(name: str, content: bytes, spoil: Spoil, **reading: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        def write(random: Random) -> None:
            (folder / name).write_bytes(spoil(random, content))

        return write, read_dataset(folder / name, **reading)

    return make


def compressed_text(folder: Path) -> Any:
    path = folder / "a.txt.gz"

    def write(random: Random) -> None:
        if random.random() < 0.5:
            path.write_bytes(spoilt(random, gzip.compress(TEXT.encode(), mtime=0)))
        else:
            path.write_bytes(gzip.compress(spoilt(random, TEXT.encode()), mtime=0))

    return write, read_dataset(path)


def encodings(folder: Path) -> Any:
    codecs = [
        "utf-16",
        "utf-32",
        "utf-7",
        "cp1252",
        "latin-1",
        "utf-8-sig",
        "shift_jis",
        "unicode_escape",
        "idna",
        "cp037",
    ]
    case = ["", ""]

    def write(random: Random) -> None:
        case[:] = [random.choice(codecs), random.choice(["strict", "replace", "ignore", "skip"])]
        data = TEXT.encode(case[0], "replace") if case[0] != "idna" else b"abc.def"
        (folder / "a.txt").write_bytes(spoilt(random, data))

    return write, lambda: read_dataset(folder / "a.txt", encoding=case[0], errors=case[1])()


def parquet(folder: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "a b"}, {"text": "c"}]), folder / "a.parquet")
    return Files(folder, {"a.parquet": spoilt}).write, read_dataset(folder / "a.parquet")


def shards(folder: Path) -> Any:
    from gpt2lab.data.encoding import encode_pieces
    from gpt2lab.data.open import open_documents
    from gpt2lab.data.pieces import Piece
    from gpt2lab.data.shards import new_shards, write_shards
    from gpt2lab.data.vocabulary import vocabulary_hash
    from gpt2lab.data.windows import Ring, Windows

    pieces = [Piece("why?", False, False), Piece("so", True), *[Piece("a text", True)] * 5]
    with new_shards(folder / "out") as place:
        write_shards(place, encode_pieces(pieces, BYTES, 1), BYTES.n_vocab, vocabulary_hash(BYTES), 20)
    old = folder / "out" / "tokens-00001.safetensors"
    data = old.read_bytes()
    header = json.loads(data[8:1024])
    del header["__metadata__"]["crc32"]  # half of the cases: without one, every check of a field is reached
    old.write_bytes(data[:8] + json.dumps(header).encode().ljust(1016) + data[1024:])
    names = [path.name for path in (folder / "out").iterdir()]

    def read() -> None:
        documents = open_documents([str(folder / "out")], BYTES)
        windows = Windows(Ring(documents, separator=256), 4, 0)
        ids = windows.batch(0, 8).tokens
        assert ids.max() < BYTES.n_vocab, "an id outside the vocabulary"
        windows.used_ids()

    return Files(folder / "out", dict.fromkeys(names, as_safetensors)).write, read


# ---- files of the program itself ------------------------------------------------------------------------------------


def packed(folder: Path) -> Any:
    from gpt2lab.engines.packed_cache import Key, has_entry, read_entry
    from gpt2lab.engines.packed_entries import entries, write_entry

    key = Key("ab" * 32, "int8", 1, 1, {"n_vocab": 5})
    arena = np.arange(8192, dtype=np.uint8)
    write_entry(folder, key, arena, "/m")
    good = (folder / key.name).read_bytes()
    magic = good.index(b"\n") + 1

    def write(random: Random) -> None:
        if random.random() < 0.3:
            data = spoilt(random, good)
        else:
            header = as_json(random, good[magic:4096].rstrip())
            data = (good[:magic] + header).ljust(4096)[:4096] + good[4096:]
        (folder / key.name).write_bytes(data)

    def read() -> None:
        [(entry.model + "", entry.precision + "", entry.size, entry.whole) for entry in entries(folder)]
        has_entry(folder, key)
        found = np.zeros_like(arena)
        assert not read_entry(folder, key, found) or (found == arena).all(), "wrong weights"

    return write, read


def states(folder: Path) -> Any:
    import torch

    from gpt2lab.training.checkpoints import load_latest, load_state, next_generation, save_state
    from gpt2lab.training.checkpoints import states as states_of

    tensors = {name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()}
    progress = {"step": 1, "generation": 0, "position": 3, "best": 2.5, "settings": {"seed": 1}}
    moments = {"wte.weight:exp_avg": tensors["wte.weight"]}
    for step in (1, 2):
        save_state(folder, CONFIG, "model", tensors, moments, {**progress, "step": step}, keep=5)
    state = folder / "state-0000002"

    def with_sum(random: Random, data: bytes) -> bytes:
        """Spoil a value, half of the time behind a right checksum."""
        content = spoilt_json(random, json.loads(data))
        if isinstance(content, dict) and random.random() < 0.7:
            content.pop("crc32", None)
            with suppress(TypeError):
                content["crc32"] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
        text = json.dumps(content)
        return spoilt(random, text.encode()) if random.random() < 0.2 else text.encode()

    files = {"progress.json": with_sum, "model.safetensors": as_safetensors, "optimizer.safetensors": spoilt}

    def read() -> None:
        states_of(folder), next_generation(folder)
        found = load_latest(folder, lambda line: None)
        assert found is not None
        dict(found.weights), dict(found.optimizer)
        load_state(state)

    return Files(state, files).write, read


def settings_file(name: str, content: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        from gpt2lab.cli.train import command

        def write(random: Random) -> None:
            (folder / name).write_bytes(as_text(random, content.encode()))

        def read() -> None:
            command.make_context("train", ["--config", str(folder / name)])

        return write, read

    return make


TOML = 'dataset = "text.txt"\nsteps = 3\nlearning_rate = 1e-4\nbatch-size = 2\nfrom_scratch = true\nrun_name = "a"\n'
YAML = 'dataset: [text.txt, b.txt]\nsteps: 3\nlearning_rate: 1.0e-4\nbatch-size: 2\nfrom_scratch: true\nrun_name: "a"\n'


def prompts(folder: Path) -> Any:
    from gpt2lab.cli.prompt_files import many_prompts
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice

    good = {
        "p.jsonl": '{"prompt": "a b"}\n{"prompt": [1, 2], "id": 3}\n',
        "p.txt": "a b\nc d\n\ne",
        "p.csv": CSV.decode(),
    }
    good["p.json"] = json.dumps([{"prompt": "a b"}, {"prompt": [1, 2]}])
    case = [""]

    def write(random: Random) -> None:
        case[0] = random.choice(list(good))
        (folder / case[0]).write_bytes(as_text(random, good[case[0]].encode()))

    return write, lambda: many_prompts(str(folder / case[0]), Reading(), Choice())


def watched(folder: Path) -> Any:
    from gpt2lab.serving.watch.run import Cursor, open_runs

    (folder / "settings.json").write_text(json.dumps({"run_name": "r", "sample_dir": "samples", "steps": 10}))
    records = [{"step": n, "seconds": n / 2, "loss": 2.0, "average": 2.0, "learning_rate": 1e-3} for n in range(1, 5)]
    records.append({"step": 4, "seconds": 2.5, "val_loss": 2.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "ended.json").write_text(json.dumps({"outcome": "diverged", "step": 4, "reason": "the loss is nan"}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 50257}))

    def lines(random: Random, data: bytes) -> bytes:
        each = data.splitlines()
        at = random.randrange(len(each))
        return b"\n".join([*each[:at], as_json(random, each[at]), *each[at + 1 :], b""])

    def read() -> None:
        for run in open_runs([str(folder)]):
            run.look()
            json.dumps(run.news(Cursor()), allow_nan=False)

    spoilers = dict.fromkeys(("settings.json", "ended.json", "config.json"), as_json)
    return Files(folder, {**spoilers, "metrics.jsonl": lines}).write, read


CSV = b'id,text\n1,"a, ""b"""\n2,c d\n3,"e\nf"\n'
JSONL = "\n".join(map(json.dumps, ROWS)).encode()

TARGETS: dict[str, tuple[Callable[[Path], Any], int]] = {
    "gguf": (gguf, 8),
    "gguf_quantized": (gguf_quantized, 4),
    "huggingface": (huggingface, 6),
    "switches": (switches, 4),
    "int8": (int8, 6),
    "int4": (int4, 6),
    "tokenizer_json": (tokenizer_json, 4),
    "tensorflow": (tensorflow, 8),
    "snappy": (snappy, 4),
    "llmc": (llmc, 4),
    "unknown_files": (unknown_files, 4),
    "answers": (answers, 2),
    "torch": (torch_files, 2),
    "npz": (npz, 8),
    "npy_headers": (npy_headers, 4),
    "zip": (zip_archive, 8),
    "tar": (tar_archive, 6),
    "json": (dataset("a.json", json.dumps(ROWS).encode(), as_text), 5),
    "json_values": (dataset("a.json", json.dumps(ROWS).encode(), as_json), 5),
    "jsonl": (dataset("a.jsonl", JSONL, as_text), 4),
    "csv": (dataset("a.csv", CSV, as_text), 4),
    "tsv": (dataset("a.tsv", CSV.replace(b",", b"\t"), as_text), 2),
    "text": (dataset("a.txt", TEXT.encode(), as_text), 2),
    "gzip": (compressed_text, 4),
    "encodings": (encodings, 4),
    "parquet": (parquet, 2),
    "shards": (shards, 8),
    "packed": (packed, 8),
    "states": (states, 6),
    "toml": (settings_file("a.toml", TOML), 6),
    "yaml": (settings_file("a.yaml", YAML), 2),
    "prompts": (prompts, 2),
    "watch": (watched, 4),
}
"""Name → how to make the target in a folder, and its share of the cases."""

"""Folders whose tokenizers were changed in fine-tuning, or are of another kind; transformers judges the ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
from checkpoint_cases.registry import Written, read, saved, tiny

TEXTS = ("Hello world", " a  b\n\nc", "naïve 日本語 😀", "hello<|end|>")
TRAINING = ["hello world a b c", "the quick brown fox jumps over the lazy dog", "naïve café 123 456"] * 3


def byte_level(*special: str) -> Any:
    """Return a tokenizer like GPT-2's that the tokenizers package has trained on a few words."""
    tokenizers = needs.package("tokenizers")
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<|endoftext|>", *special],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    built.train_from_iterator(TRAINING, trainer)
    return built


def with_tokenizer(folder: Path, backend: Any, *, rows: int | None = None, **settings: Any) -> tuple[Written, Any]:
    """Save a model and ``backend`` with transformers; return both as read again, special tokens being plain text."""
    transformers = needs.package("transformers")
    n_vocab = rows or backend.get_vocab_size()
    ends = backend.token_to_id("<|endoftext|>") or 0
    written = saved(tiny(vocab_size=n_vocab, bos_token_id=ends, eos_token_id=ends), folder / "hf")
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    wrapped.save_pretrained(written.path)
    return written, wrapped


def judged(written: Written, tokenizer: Any, texts: tuple[str, ...] = TEXTS) -> Written:
    ids = {text: tokenizer(text, split_special_tokens=True).input_ids for text in texts}
    return Written(written.path, written.logits, ids=ids)


def changed(change: Callable[[Any], None]) -> Callable[[Path], Written]:
    """Return a builder of a folder whose tokenizer ``change`` has changed."""

    def build(folder: Path) -> Written:
        backend = byte_level("<|end|>")
        change(backend)
        return judged(*with_tokenizer(folder, backend, eos_token="<|endoftext|>"))

    return build


@read(
    "tokens added in fine-tuning, in `tokenizer.json`",
    writer="transformers",
    note="special ones are read with `--special`",
)
def added_tokens(folder: Path) -> Written:
    backend = byte_level()
    backend.add_special_tokens(["<|user|>", "<|end|>"])
    backend.add_tokens(["covid19"])
    return judged(*with_tokenizer(folder, backend, eos_token="<|end|>"), (*TEXTS, "a covid19 <|user|>b"))


@read("more tokens than rows of the embedding", writer="transformers", note="a text is refused if it needs one of them")
def more_tokens_than_rows(folder: Path) -> Written:
    backend = byte_level("<|end|>")
    rows = backend.get_vocab_size()
    backend.add_special_tokens(["[PAD]"])
    return judged(*with_tokenizer(folder, backend, rows=rows, pad_token="[PAD]"))


@read("a tokenizer that puts a token before every text", writer="tokenizers", note="the token is part of the prompt")
def post_processor(folder: Path) -> Written:
    processors = needs.package("tokenizers").processors

    def begin(backend: Any) -> None:
        backend.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", pair=None, special_tokens=[("<|endoftext|>", 0)]
        )

    return changed(begin)(folder)


@read(
    "a tokenizer with a `normalizer`", writer="tokenizers", note="needs `gpt2lab[tokenizers]`; otherwise token ids only"
)
def normalizer(folder: Path) -> Written:
    normalizers = needs.package("tokenizers").normalizers

    def lower(backend: Any) -> None:
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])

    return changed(lower)(folder)


@read("a byte-level tokenizer with `use_regex: false`", writer="tokenizers", note="needs `gpt2lab[tokenizers]`")
def without_regex(folder: Path) -> Written:
    pre_tokenizers = needs.package("tokenizers").pre_tokenizers

    def whole(backend: Any) -> None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    return changed(whole)(folder)


@read("a byte-level tokenizer with split digits", writer="tokenizers", note="needs `gpt2lab[tokenizers]`")
def split_digits(folder: Path) -> Written:
    pre_tokenizers = needs.package("tokenizers").pre_tokenizers

    def digits(backend: Any) -> None:
        backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        ])  # fmt: skip

    return changed(digits)(folder)


@read(
    "`vocab.json` and `merges.txt` with `add_prefix_space`", writer="transformers 4", note="needs `gpt2lab[tokenizers]`"
)
def prefix_space(folder: Path) -> Written:
    transformers = needs.package("transformers")
    backend = byte_level("<|end|>")
    written, _ = with_tokenizer(folder, backend)
    content = json.loads((written.path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (written.path / "tokenizer.json").unlink()
    (written.path / "vocab.json").write_text(json.dumps(content["vocab"]), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"]]
    (written.path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
    (written.path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return judged(written, transformers.AutoTokenizer.from_pretrained(written.path), TEXTS[:3])


@read("a Unigram tokenizer, as SentencePiece's", writer="tokenizers", note="needs `gpt2lab[tokenizers]`")
def unigram(folder: Path) -> Written:
    tokenizers = needs.package("tokenizers")
    built = tokenizers.Tokenizer(tokenizers.models.Unigram())
    built.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    built.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=60, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    built.train_from_iterator(TRAINING, trainer)
    return judged(*with_tokenizer(folder, built, eos_token="</s>"), ("hello world", "the fox ☃"))


@read("a WordPiece tokenizer, as BERT's", writer="tokenizers", note="needs `gpt2lab[tokenizers]`")
def wordpiece(folder: Path) -> Written:
    tokenizers = needs.package("tokenizers")
    built = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    built.normalizer = tokenizers.normalizers.BertNormalizer()
    built.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    built.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=120, show_progress=False, special_tokens=["[UNK]"])
    built.train_from_iterator(TRAINING, trainer)
    return judged(*with_tokenizer(folder, built), ("Hello, world!", "quick foxes"))


def _only(folder: Path, name: str, content: bytes) -> Written:
    written = saved(tiny(), folder / "hf")
    (written.path / name).write_bytes(content)
    return written


@read("only `spiece.model`", writer="SentencePiece", note="token ids only: save `tokenizer.json` with transformers")
def only_spiece(folder: Path) -> Written:
    return _only(folder, "spiece.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")


@read("only `vocab.txt`", writer="BERT", note="token ids only: save `tokenizer.json` with transformers")
def only_vocab_txt(folder: Path) -> Written:
    return _only(folder, "vocab.txt", b"[UNK]\nhello\nworld\n")


@read("`vocab.json` without `merges.txt`", writer="transformers", note="token ids only: the merges are missing")
def without_merges(folder: Path) -> Written:
    return _only(folder, "vocab.json", json.dumps({"a": 0, "b": 1}).encode())

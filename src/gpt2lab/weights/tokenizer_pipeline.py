"""Compare the stages of a ``tokenizer.json`` with those of GPT-2's tokenizer: byte-level BPE and nothing else.

The format is that of the ``tokenizers`` package. This module knows nothing of vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import Repr
from typing import Any

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_MODEL: Mapping[str, tuple[Any, ...]] = {
    "type": ("BPE", None),
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}

_SHORT = Repr()
_SHORT.maxother = _SHORT.maxstring = 60


def difference(content: Mapping[str, Any]) -> str | None:
    """Return the first key, and its value, that makes a tokenizer another one than GPT-2's kind; None if none does."""
    if content.get("normalizer") is not None:
        return _stated("normalizer", content["normalizer"])
    rule = content.get("pre_tokenizer")
    if not isinstance(rule, dict) or rule.get("type") != "ByteLevel":
        return _stated("pre_tokenizer", rule)
    for key, value in _BYTE_LEVEL.items():
        if rule.get(key, True) != value:  # both are true by default
            return _stated(f"pre_tokenizer.{key}", rule.get(key, True))
    decoder = content.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        return _stated("decoder", decoder)
    model = content.get("model")
    if not isinstance(model, dict):
        return _stated("model", model)
    for key, allowed in _MODEL.items():
        if model.get(key) not in allowed:
            return _stated(f"model.{key}", model.get(key))
    return None


def template(processor: Any) -> tuple[tuple[int, ...], tuple[int, ...], str | None]:
    """Return the ids that a post-processor puts before and after a text, and what it does besides, if anything."""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    kind = processor.get("type") if isinstance(processor, dict) else processor
    if kind in (None, "ByteLevel"):  # the latter moves only offsets
        return before, after, None
    try:
        if kind == "TemplateProcessing":
            return (*_of_template(processor), None)
        if kind in ("RobertaProcessing", "BertProcessing"):
            return (int(processor["cls"][1]),), (int(processor["sep"][1]),), None
        if kind == "Sequence":
            for each in processor["processors"]:
                first, last, unknown = template(each)
                if unknown:
                    return (), (), unknown
                before, after = (*first, *before), (*after, *last)
            return before, after, None
    except (KeyError, TypeError, ValueError, IndexError):
        return (), (), _stated("post_processor", processor)
    return (), (), _stated("post_processor.type", kind)


def _of_template(processor: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sides: tuple[list[int], list[int]] = ([], [])
    place = 0
    for item in processor["single"]:
        if "Sequence" in item:
            place += 1
        else:
            sides[place].extend(map(int, processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]))
    if place != 1:
        raise ValueError
    return tuple(sides[0]), tuple(sides[1])


def _stated(key: str, value: Any) -> str:
    return f"{key} is {_SHORT.repr(value)}"

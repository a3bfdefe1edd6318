"""Ways to spoil a file: bytes, tokens of text, values of JSON. Everything depends on the given ``Random`` alone."""

from __future__ import annotations

import json
import re
import struct
from random import Random
from typing import Any

NUMBERS = [0, 1, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
WORDS = [
    "1e999", "-1e999", "NaN", "Infinity", "null", "true", "false", "1.5", "-1", "nan", "inf", "0xffff", "12:00:00",
    "2020-01-01", *(str(number) for number in NUMBERS), "{}", "[]", '""', "[" * 3000, '{"a":' * 3000, "(" * 300,
    "9" * 5000, '"\\ud800"', '"\\u0000"', "\x1b[2J", "\x00", "<|endoftext|>", "\r\n", "\n", "\ufeff", '"', "'", ",",
    "\t", ";", "|", "..", "/", "~", "é", "日", "😀", "\u202e", "\\", "#", "&a [*a]", "[[x]]", "a = ", "x" * 10_000,
]  # fmt: skip
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def spoilt(random: Random, data: bytes) -> bytes:
    """Return ``data`` cut short, with bits flipped, numbers overwritten, bytes put in, taken out, copied or swapped."""
    if not data:
        return random.randbytes(random.randint(1, 40))
    kind = random.choice(["cut", "flip", "number", "insert", "remove", "copy", "random", "token"])
    if kind == "cut":
        return data[: random.randrange(len(data))]
    if kind == "token":
        return spoilt_text(random, data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    out = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 3, 10])):
        at = random.randrange(len(out) or 1)
        size = random.choice([1, 2, 4, 8])
        if kind == "flip" and out:
            out[at] ^= 1 << random.randrange(8)
        elif kind == "number":
            value = struct.pack(random.choice("<>") + "Q", random.choice(NUMBERS))
            out[at : at + size] = value[:size] if random.random() < 0.5 else value[-size:]
        elif kind == "insert":
            out[at:at] = random.randbytes(size)
        elif kind == "remove":
            del out[at : at + random.randint(1, 30)]
        elif kind == "copy":
            start = random.randrange(len(out) or 1)
            out[at : at + random.choice([0, size, 40])] = out[start : start + random.choice([size, 40, 200])]
        else:
            out[at : at + size] = random.randbytes(size)
    return bytes(out)


def spoilt_text(random: Random, text: str) -> str:
    """Return ``text`` with a few of its words and signs replaced, repeated, swapped or left out."""
    tokens = _TOKEN.findall(text) or [""]
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        kind = random.choice(["word", "word", "word", "swap", "remove", "repeat", "add"])
        if kind == "word":
            tokens[at] = random.choice(WORDS)
        elif kind == "swap":
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == "remove":
            tokens[at] = ""
        elif kind == "repeat":
            tokens[at] *= random.choice([2, 3, 100])
        else:
            tokens[at] += random.choice(WORDS)
    return "".join(tokens)


def value(random: Random, depth: int = 0) -> Any:
    """Return any value of JSON, an extreme one rather than not."""
    kind = random.choice(["number", "number", "float", "text", "constant", "list", "dict"][: 7 if depth < 2 else 5])
    if kind == "number":
        return random.choice([1, -1]) * random.choice(NUMBERS)
    if kind == "float":
        return random.choice([0.5, 1e300, 1e-300, float("inf"), float("-inf"), float("nan"), 2.0, 1e18])
    if kind == "text":
        return random.choice(["", "a", "\x1b[2J", "\0", "\ud800", "é", "..", "/", "../x", "9" * 30, "nan", "x" * 3000])
    if kind == "constant":
        return random.choice([None, True, False])
    if kind == "list":
        return [value(random, depth + 1) for _ in range(random.choice([0, 1, 2, 40]))]
    return {str(value(random, 2)): value(random, depth + 1) for _ in range(random.choice([0, 1, 2]))}


def spoilt_json(random: Random, content: Any) -> Any:
    """Return JSON data with one value, at any depth, replaced, left out or added."""
    if isinstance(content, dict) and content and random.random() < 0.9:
        name = random.choice(list(content))
        out = dict(content)
        if random.random() < 0.1:
            out[str(value(random, 2))] = out.pop(name)
        elif random.random() < 0.1:
            del out[name]
        else:
            out[name] = spoilt_json(random, content[name])
        return out
    if isinstance(content, list) and content and random.random() < 0.8:
        at = random.randrange(len(content))
        changed = random.choice([[], [spoilt_json(random, content[at])], [content[at]] * 3])
        return [*content[:at], *changed, *content[at + 1 :]]
    return value(random)


def json_bytes(random: Random, content: Any) -> bytes:
    """Return the bytes of JSON data that were spoilt as data, as text or as bytes."""
    kind = random.choice(["data", "data", "text", "bytes"])
    if kind == "data":
        return json.dumps(spoilt_json(random, content), ensure_ascii=random.random() < 0.8).encode("utf-8", "replace")
    text = json.dumps(content)
    return spoilt_text(random, text).encode("utf-8", "replace") if kind == "text" else spoilt(random, text.encode())

"""Write checkpoints as TensorFlow does: any number of shards, and an index that is raw or compressed with snappy."""

import json
import struct

from gpt2lab.weights.crc32c import masked_crc32c


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def variables(checkpoint):
    """Return the tensors of a checkpoint with TensorFlow's names and shapes."""
    kinds = {"weight": "w", "bias": "b"}
    found = {}
    for name, tensor in checkpoint.tensors.items():
        part, kind = name.rsplit(".", 1)
        norm = part.split(".")[-1].startswith("ln")
        if name in ("wte.weight", "wpe.weight"):
            found[f"model/{part}"] = tensor
            continue
        last = {"weight": "g", "bias": "b"}[kind] if norm else kinds[kind]
        path = part.replace("h.", "h", 1).replace(".", "/") if part.startswith("h.") else part
        found[f"model/{path}/{last}"] = tensor[None] if last == "w" else tensor
    return found


def entry(tensor, shard, **other):
    dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in tensor.shape))
    data = tensor.tobytes()
    fields = {"dtype": 1, "size": len(data), "crc": masked_crc32c(data), **other}
    message = b"\x08" + varint(fields["dtype"]) + b"\x12" + varint(len(dims)) + dims
    message += b"\x18" + varint(shard) + b"\x20" + varint(fields["offset"])
    return message + b"\x28" + varint(fields["size"]) + b"\x35" + struct.pack("<I", fields["crc"])


def snappy(data):
    """Compress with a simple form of snappy: literals, and a copy wherever the last four bytes repeat."""
    out, at = bytearray(varint(len(data))), 0
    while at < len(data):
        if at >= 4 and data[at : at + 4] == data[at - 4 : at]:
            out += bytes([3 << 2 | 2]) + struct.pack("<H", 4)
            at += 4
        else:
            piece = data[at : at + 5]
            out += bytes([len(piece) - 1 << 2]) + piece
            at += len(piece)
    return bytes(out)


def table(entries, *, compress=False, per_block=5):
    """Return a LevelDB table of sorted key/value pairs, with shared prefixes."""
    out, index = bytearray(), []

    def block(pairs):
        body, previous = bytearray(), b""
        for key, value in pairs:
            shared = 0
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            previous = key
        body += struct.pack("<II", 0, 1)
        stored, kind = (snappy(bytes(body)), b"\1") if compress else (bytes(body), b"\0")
        handle = varint(len(out)) + varint(len(stored))
        out.extend(stored + kind + struct.pack("<I", masked_crc32c(stored + kind)))
        return handle

    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        index.append((part[-1][0], block(part)))
    handles = block([]) + block(index)
    return bytes(out) + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(folder, checkpoint, *, prefix="model.ckpt", n_shards=1, hparams=True, extra=(), change=None, **how):
    """Write ``checkpoint`` to ``folder``; ``change`` maps a variable's name to false fields of its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [bytearray() for _ in range(n_shards)]
    entries = {b"": b"\x08" + varint(n_shards) + b"\x1a\x02\x08\x01"}
    for number, (name, tensor) in enumerate([*variables(checkpoint).items(), *extra]):
        shard = number % n_shards
        entries[name.encode()] = entry(tensor, shard, **{"offset": len(shards[shard]), **(change or {}).get(name, {})})
        shards[shard] += tensor.tobytes()
    (folder / f"{prefix}.index").write_bytes(table(sorted(entries.items()), **how))
    for number, data in enumerate(shards):
        (folder / f"{prefix}.data-{number:05d}-of-{n_shards:05d}").write_bytes(data)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n')
    if hparams:
        (folder / "hparams.json").write_text(json.dumps(checkpoint.config.to_hparams()))
    return folder

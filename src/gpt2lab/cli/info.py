"""``gpt2lab info``: describe a model. The facts come from ``weights.describe``, memory figures from the engines."""

from __future__ import annotations

import json

import click

from gpt2lab.cli.options import ACTIVATION
from gpt2lab.cli.output import megabytes
from gpt2lab.errors import escaped
from gpt2lab.version import CONTRACT


@click.command("info")
@click.argument("model", default="tales")
@click.option("--activation", **ACTIVATION)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; sizes are in bytes.")
def command(model: str, activation: str | None, as_json: bool) -> None:
    """Describe MODEL: its shape, size, precision, the memory that it takes, its tokenizer, and a hash of its weights.

    The hash is over the tensors as float32, so the same weights have the same hash in every format. The last lines
    concern this machine: the contract's version, the instruction set, and the processors that compute the same
    bits. MODEL is a name (tales, 124M) or a path; default tales.
    """
    from gpt2lab.engines.loading import cached_precisions
    from gpt2lab.engines.native import instruction_set
    from gpt2lab.engines.packed_entries import obstacle
    from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS, machine_group, weight_bytes
    from gpt2lab.weights import open_checkpoint
    from gpt2lab.weights.describe import describe

    checkpoint = open_checkpoint(model, activation=activation)
    facts = describe(checkpoint)
    facts["packed_bytes"] = {name: weight_bytes(checkpoint.config, name) for name in PRECISIONS}
    facts["cached"] = cached_precisions(checkpoint)
    facts["contract"] = CONTRACT
    facts["instruction_set"] = instruction_set()
    facts["same_bits"] = {name: machine_group(name, facts["instruction_set"]) for name in PRECISIONS}
    if as_json:
        click.echo(json.dumps(facts))
        return
    config = checkpoint.config
    full_context = {name: config.kv_cache_bytes(config.n_ctx, name) for name in KV_PRECISIONS}
    shape = " ".join(f"{name} {value}" for name, value in config.to_hparams().items())
    lines = {
        "model": facts["path"],
        "format": f"{facts['format']}, {facts['precision']}",
        "shape": shape,
        "parameters": f"{facts['parameters']:,}",
        "on disk": megabytes(facts["file_bytes"]),
        "in memory": ", ".join(f"{name} {megabytes(size)}" for name, size in facts["packed_bytes"].items()),
        "exact": "float32 alone: the others round weights, so their likeliest tokens may differ from the original's",
        "keys, values": ", ".join(f"{name} {megabytes(size)}" for name, size in full_context.items())
        + " for a full context",
        "cached": ", ".join(facts["cached"]) or (f"nothing: {reason}" if (reason := obstacle()) else "nothing yet"),
        "tokenizer": facts["tokenizer"],
        "weights sha256": facts["weights_sha256"],
        "contract": f"version {facts['contract']}: under one version, the same request gives the same text",
        "instruction set": facts["instruction_set"],
        "same bits": _groups(facts["same_bits"]),
    }
    for name, value in lines.items():
        click.echo(f"{name:<15} {escaped(value)}")


def _groups(same_bits: dict[str, str]) -> str:
    """Return each group of processors after the precisions in which this machine belongs to it."""
    members: dict[str, list[str]] = {}
    for precision, group in same_bits.items():
        members.setdefault(group, []).append(precision)
    return "; ".join(f"{', '.join(precisions)} on {group}" for group, precisions in members.items())

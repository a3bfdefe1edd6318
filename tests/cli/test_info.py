"""``gpt2lab info``: the lines about this machine. Other tests check those about a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2lab import _native
from gpt2lab.engines.precision import MATRIX_UNIT_PRECISIONS, PRECISIONS
from gpt2lab.version import CONTRACT

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_the_contract_and_the_machines_group_are_shown(gpt2lab, monkeypatch, isa: str) -> None:
    monkeypatch.setenv("GPT2LAB_ISA", isa)
    lines = gpt2lab("info", TINY).stdout.splitlines()
    unit = "with" if isa == "amx" else "without"
    assert f"contract        version {CONTRACT}: under one version, the same request gives the same text" in lines
    assert f"instruction set {isa}" in lines
    assert lines[-1].startswith("same bits       float32")
    assert " on every processor; bfloat16" in lines[-1]
    assert lines[-1].endswith(f" on processors {unit} a matrix unit")


def test_programs_get_the_group_of_each_precision(gpt2lab) -> None:
    facts = json.loads(gpt2lab("info", TINY, "--json").stdout)
    assert facts["contract"] == CONTRACT
    assert facts["instruction_set"] == _native.instruction_sets()[0]
    assert list(facts["same_bits"]) == list(PRECISIONS)
    others = {group for name, group in facts["same_bits"].items() if name not in MATRIX_UNIT_PRECISIONS}
    assert others == {"every processor"}


def test_precisions_that_depend_on_a_matrix_unit_exist() -> None:
    assert set(MATRIX_UNIT_PRECISIONS) < set(PRECISIONS)


def test_switches_follow_the_shape(gpt2lab, tmp_path):
    import family

    family.save("all", tmp_path / "all")
    result = gpt2lab("info", tmp_path / "all")
    assert result.exit_code == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("shape")]
    assert line.endswith(
        "n_layer 3 activation gelu n_inner 70 layer_norm_epsilon 1e-06 scale_attn_by_inverse_layer_idx True "
        "reorder_and_upcast_attn True tie_word_embeddings False"
    )

"""Every kind of checkpoint in the registry is read as transformers reads it, or refused in one line."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import checkpoint_table
from checkpoint_cases import CASES
from checkpoint_cases.registry import judge


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case, tmp_path):
    judge(case, tmp_path)


def test_the_table_in_the_docs_is_current():
    text = checkpoint_table.PAGE.read_text(encoding="utf-8")
    assert checkpoint_table.MADE.search(text), "no table in it"
    assert checkpoint_table.made(text) == text, "run tools/checkpoint_table.py"


def test_each_kind_is_listed_once():
    kinds = [case.kind for case in CASES]
    assert len(set(kinds)) == len(kinds)


def test_the_judge_finds_other_logits(tmp_path):
    case = next(case for case in CASES if case.name == "transformers_folders-one_file")
    written = case.build(tmp_path)
    (tmp_path / "hf" / "model.safetensors").write_bytes(other_weights(tmp_path))
    with pytest.raises(AssertionError, match="Mismatched elements"):
        judge(type(case)(case.kind, "", "", lambda folder: written, None), tmp_path)


def other_weights(folder):
    from checkpoint_cases.registry import saved, tiny

    return (saved(tiny(seed=1), folder / "other").path / "model.safetensors").read_bytes()

"""Jobs on a Ray cluster of this machine: two workers, one of which is killed, and mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import needs
from gpt2lab.engines.precision import EVERY_PROCESSOR, WITH_MATRIX_UNIT, WITHOUT_MATRIX_UNIT, machine_group
from gpt2lab.errors import UsageError
from gpt2lab.version import CONTRACT

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- mistakes, without a cluster ------------------------------------------------------------------------------------


def test_a_missing_extra_is_named(gpt2lab, prompts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    flags = ("--prompts", prompts, "--out", tmp_path / "out", "--seed", 1, "--model", TINY, "--length", 1)
    result = gpt2lab("generate", *flags, "--ray")
    assert result.exit_code == 2
    assert result.stderr == "gpt2lab: seed 1\ngpt2lab: error: --ray needs ray: pip install 'gpt2lab[ray]'\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.jsonl"]


@needs.mark("ray")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "there is no Ray cluster at 127.0.0.1:1 ("),
        ("ray://127.0.0.1:10001", "run gpt2lab on a machine of the cluster (ray job submit)"),
        ("nonsense", "'nonsense' is not the address of a Ray cluster: give host:port, or auto"),
        ("127.0.0.1:99999", "there is no Ray cluster at 127.0.0.1:99999"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_in_a_line(gpt2lab, prompts, tmp_path, address, message):
    flags = ("--prompts", prompts, "--out", tmp_path / "out", "--seed", 1, "--model", TINY, "--length", 1)
    result = gpt2lab("generate", *flags, "--ray", "--ray_address", address)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.jsonl"]


# ---- two workers ----------------------------------------------------------------------------------------------------


@needs.mark("ray", "Linux")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_loses_and_doubles_nothing(start, gpt2lab, tmp_path, ray_workers, ended):
    (tmp_path / "prompts.txt").write_text("".join(f"Tale {number}\n" for number in range(24)))
    flags = ("--prompts", tmp_path / "prompts.txt", "--nsamples", 2, "--seed", 7, "--json", "--model", TINY)
    flags = (*flags, "--length", 300, "--overflow", "slide", "--part_size", 3)
    out = tmp_path / "out.jsonl"
    process = start("generate", *flags, "--out", out, "--ray", "--workers", 2)
    killed = None
    while process.poll() is None and killed is None:
        if list(tmp_path.glob("out.jsonl.parts/part-*")) and len(workers := ray_workers(process)) == 2:
            killed = next(iter(workers))
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    made_before = len(list(tmp_path.glob("out.jsonl.parts/part-*")))
    _, errors = process.communicate(timeout=580)
    ended(errors)
    assert process.returncode == 0, errors
    assert killed is not None
    assert 0 < made_before < 8
    assert [line["index"] for line in lines_of(out)] == list(range(48))
    assert gpt2lab("generate", *flags, "--out", tmp_path / "here.jsonl").exit_code == 0
    assert out.read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    said = [line for line in errors.splitlines() if "parts" not in line]
    assert said == ["gpt2lab: seed 7", f"gpt2lab: 48 samples written to {out}"]


# ---- a worker in this process ---------------------------------------------------------------------------------------


@pytest.fixture
def order():
    """Return the order that a worker receives."""
    from gpt2lab import load
    from gpt2lab.cli.jobs import _json
    from gpt2lab.jobs.generating import Order, digest_of

    options = {"seed": 1, "length": 5}
    return Order({"name_or_path": TINY, "threads": 1}, options, 2, 3, _json, None, digest_of(load(TINY)))


def test_a_worker_makes_the_part_that_it_is_given(order, gpt2lab, prompts):
    from gpt2lab.jobs.generating import Writer

    given = json.dumps(["Tale 3", "Tale 4", "Tale 5"]).encode()
    ((number, kind, data),) = Writer(order)(1, given)
    flags = ("--nsamples", 2, "--seed", 1, "--length", 5, "--json", "--model", TINY)
    lines = gpt2lab("generate", "--prompts", prompts, *flags).stdout.splitlines(keepends=True)
    assert (number, kind) == (1, "")
    assert data.decode() == "".join(lines[6:12])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "0.0.0"}, f"gpt2lab 0.0.0 (contract {CONTRACT}) started the job, but a worker has"),
        ({"contract": 1}, "(contract 1) started the job, but a worker has"),
        ({"digest": "another"}, "than the machine that started the job"),
        ({"model": {"name_or_path": "/not/here"}}, "no model at /not/here"),
    ],
)
def test_a_worker_that_would_make_another_text_refuses_as_a_row(order, change, message):
    needs.check("pyarrow")
    from gpt2lab.jobs.cluster import ERROR, Row, _Actor, _rows_of, _table
    from gpt2lab.jobs.generating import Writer

    actor = _Actor(Writer, {"order": dataclasses.replace(order, **change)})
    (table,) = actor(_table([Row(4, "", b'["A"]')]))
    ((number, kind, data),) = _rows_of(table)
    assert (number, kind) == (4, ERROR)
    assert message in data.decode()


@needs.mark("a CPU with AMX")
@pytest.mark.parametrize("group", [WITH_MATRIX_UNIT, WITHOUT_MATRIX_UNIT])
def test_a_worker_computes_in_the_group_of_the_machine_that_began(order, monkeypatch, group):
    from gpt2lab.jobs.generating import Writer

    monkeypatch.setenv("GPT2LAB_ISA", "avx2" if group == WITH_MATRIX_UNIT else "amx")
    worker = Writer(dataclasses.replace(order, processors=group))
    assert machine_group("bfloat16", worker._model.engine.instruction_set) == group


def test_a_worker_without_a_matrix_unit_refuses_a_job_that_needs_one(order, monkeypatch):
    from gpt2lab import _native
    from gpt2lab.jobs.generating import Writer

    monkeypatch.setenv("GPT2LAB_ISA", "baseline")
    monkeypatch.setattr(_native, "instruction_sets", lambda: ["baseline"])
    with pytest.raises(UsageError, match="which a worker lacks: start it with another GPT2LAB_ISA"):
        Writer(dataclasses.replace(order, processors=WITH_MATRIX_UNIT))


def test_a_worker_uses_its_own_instruction_set_where_all_give_the_same_bits(order, monkeypatch):
    from gpt2lab.jobs.generating import Writer

    monkeypatch.setenv("GPT2LAB_ISA", "baseline")
    worker = Writer(dataclasses.replace(order, processors=EVERY_PROCESSOR))
    assert worker._model.engine.instruction_set == "baseline"

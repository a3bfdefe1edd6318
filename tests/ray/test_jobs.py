"""``gpt2lab generate --prompts … --out …`` on this machine: parts, the remains of an interrupted job, the end."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needs
from gpt2lab.jobs import generating
from gpt2lab.jobs.outputs import LocalOutput
from gpt2lab.jobs.parts import Parts
from gpt2lab.version import CONTRACT

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")

FLAGS = ("--model", TINY, "--length", 6, "--part_size", 3)


@pytest.fixture
def expected(gpt2lab, prompts) -> str:
    """Return what is printed without ``--out``."""
    return gpt2lab("generate", "--prompts", prompts, "--seed", 1, "--nsamples", 2, "--json", *FLAGS[:4]).stdout


@pytest.fixture
def job(gpt2lab, prompts):
    """Provide ``job(out, *more)``: two samples of each prompt."""

    def run(out, *more, seed=("--seed", 1)):
        return gpt2lab("generate", "--prompts", prompts, "--out", out, *seed, "--nsamples", 2, "--json", *FLAGS, *more)

    return run


@pytest.fixture
def broken_off(monkeypatch):
    """Provide ``broken_off(*parts)``: from then on a job ends when it reaches one of these."""

    def at(*numbers):
        add = Parts.add

        def failing(self, number, data):
            if number in numbers:
                raise KeyboardInterrupt
            add(self, number, data)

        monkeypatch.setattr(Parts, "add", failing)

    return at


def made_parts(monkeypatch) -> list[int]:
    """Provide the numbers of the parts that are computed from now on."""
    made: list[int] = []
    make_parts = generating.make_parts

    def noting(*arguments):
        for number, data in make_parts(*arguments):
            made.append(number)
            yield number, data

    monkeypatch.setattr(generating, "make_parts", noting)
    return made


# ---- the output -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part_size", [1, 3, 100])
def test_the_output_is_what_would_be_printed_however_it_is_divided(job, expected, tmp_path, part_size):
    result = job(tmp_path / "out.jsonl", "--part_size", part_size)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("gpt2lab: seed 1\n")
    assert result.stderr.endswith(f"gpt2lab: 20 samples written to {tmp_path / 'out.jsonl'}\n")
    assert (tmp_path / "out.jsonl").read_text() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]


def test_plain_text_is_the_same_too(gpt2lab, prompts, tmp_path):
    flags = ("generate", "--prompts", prompts, "--seed", 1, *FLAGS)
    assert gpt2lab(*flags, "--out", tmp_path / "out.txt").exit_code == 0
    assert (tmp_path / "out.txt").read_text() == gpt2lab(*flags).stdout


def test_prompts_and_output_may_lie_in_an_object_store(gpt2lab, store, prompts, expected):
    store.pipe_file("/bucket/prompts.jsonl", prompts.read_bytes())
    where = ("--prompts", "memory://bucket/prompts.jsonl", "--out", "memory://bucket/out.jsonl")
    result = gpt2lab("generate", *where, "--seed", 1, "--nsamples", 2, "--json", *FLAGS)
    assert result.exit_code == 0, result.output
    assert store.cat_file("/bucket/out.jsonl").decode() == expected
    assert [path.rpartition("/")[2] for path in sorted(store.find("/bucket"))] == ["out.jsonl", "prompts.jsonl"]


@pytest.mark.parametrize("out", ["here", "store"])
def test_what_exists_is_kept_unless_told(job, store, expected, tmp_path, out):
    name = tmp_path / "out.jsonl" if out == "here" else "memory://bucket/out.jsonl"
    (tmp_path / "out.jsonl").write_text("old")
    store.pipe_file("/bucket/out.jsonl", b"old")
    result = job(name)
    assert result.exit_code == 2
    assert result.stderr == f"gpt2lab: error: {name} already exists; give another name or --overwrite\n"
    assert job(name, "--overwrite").exit_code == 0
    found = (tmp_path / "out.jsonl").read_text() if out == "here" else store.cat_file("/bucket/out.jsonl").decode()
    assert found == expected


# ---- a job that was interrupted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["here", "store"])
def test_an_interrupted_job_goes_on_where_it_stopped(job, store, expected, tmp_path, monkeypatch, broken_off, out):
    name = str(tmp_path / "out.jsonl") if out == "here" else "memory://bucket/out.jsonl"
    broken_off(2)
    result = job(name)
    assert result.exit_code == 130
    assert "stopped with 2 of 4 parts complete: run the same command again to resume" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert not store.exists("/bucket/out.jsonl")
    monkeypatch.undo()
    made = made_parts(monkeypatch)
    result = job(name)
    assert result.exit_code == 0, result.output
    assert "gpt2lab: 2 of 4 parts are already complete\n" in result.stderr
    assert made == [2, 3]
    found = (tmp_path / "out.jsonl").read_text() if out == "here" else store.cat_file("/bucket/out.jsonl").decode()
    assert found == expected


def test_a_part_that_is_missing_in_the_middle_is_made(job, expected, tmp_path, monkeypatch, broken_off):
    broken_off(3)
    assert job(tmp_path / "out.jsonl").exit_code == 130
    monkeypatch.undo()
    (tmp_path / "out.jsonl.parts" / "part-00000001").unlink()
    made = made_parts(monkeypatch)
    assert job(tmp_path / "out.jsonl").exit_code == 0
    assert made == [1, 3]
    assert (tmp_path / "out.jsonl").read_text() == expected


def test_a_seed_that_was_drawn_is_kept(job, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    first = job(tmp_path / "out.jsonl", seed=())
    monkeypatch.undo()
    second = job(tmp_path / "out.jsonl", seed=())
    assert first.stderr.splitlines()[0] == second.stderr.splitlines()[0]
    seeds = {json.loads(line)["seed"] for line in (tmp_path / "out.jsonl").read_text().splitlines()}
    assert first.stderr.startswith(f"gpt2lab: seed {seeds.pop()}\n")
    assert not seeds


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--seed", 2), "belongs to a job with a different seed (1, not 2)"),
        (("--temperature", 0.5), "belongs to a job with a different temperature (1.0, not 0.5)"),
        (("--part_size", 4), "belongs to a job with a different part size (3, not 4)"),
        (("--precision", "float32"), "belongs to a job with a different precision ('int8', not 'float32')"),
    ],
)
def test_a_job_goes_on_only_as_it_was_begun(job, tmp_path, monkeypatch, broken_off, more, message):
    broken_off(2)
    job(tmp_path / "out.jsonl")
    monkeypatch.undo()
    result = job(tmp_path / "out.jsonl", *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    result = job(tmp_path / "out.jsonl", *more, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "already" not in result.stderr


def test_a_job_of_before_contracts_had_versions_is_not_mixed_with_this_one(job, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    job(tmp_path / "out.jsonl")
    monkeypatch.undo()
    record = tmp_path / "out.jsonl.parts" / "job.json"
    settings = json.loads(record.read_text())["settings"]
    assert settings.pop("contract") == CONTRACT
    record.write_text(json.dumps({"settings": settings}))
    result = job(tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert f"belongs to a job with a different contract (1, not {CONTRACT})" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_job_in_float32_goes_on_with_any_instruction_set(job, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    job(tmp_path / "out.jsonl", "--precision", "float32")
    monkeypatch.undo()
    monkeypatch.setenv("GPT2LAB_ISA", "baseline")
    assert job(tmp_path / "out.jsonl", "--precision", "float32").exit_code == 0
    monkeypatch.delenv("GPT2LAB_ISA")
    assert job(tmp_path / "whole.jsonl", "--precision", "float32").exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@needs.mark("a CPU with AMX")
def test_a_job_in_bfloat16_goes_on_only_in_its_group_of_processors(job, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    job(tmp_path / "out.jsonl", "--precision", "bfloat16")
    monkeypatch.undo()
    monkeypatch.setenv("GPT2LAB_ISA", "avx2")
    result = job(tmp_path / "out.jsonl", "--precision", "bfloat16")
    assert result.exit_code == 2
    assert "belongs to a job with different processors" in result.stderr


def test_the_output_is_never_the_prompts(job, prompts):
    before = prompts.read_bytes()
    result = job(prompts, "--overwrite")
    assert result.exit_code == 2
    assert f"{prompts} is also an input: give the output another name" in result.stderr
    assert prompts.read_bytes() == before


def test_other_prompts_are_another_job(job, prompts, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    job(tmp_path / "out.jsonl")
    monkeypatch.undo()
    prompts.write_text(prompts.read_text().replace("Tale 9", "Tale 8"))
    assert "belongs to a job with different prompts" in job(tmp_path / "out.jsonl").stderr


def test_speed_may_change(job, expected, tmp_path, monkeypatch, broken_off):
    broken_off(2)
    job(tmp_path / "out.jsonl")
    monkeypatch.undo()
    assert job(tmp_path / "out.jsonl", "--batch_size", 1, "--threads", 1, "--speculation", "off").exit_code == 0
    assert (tmp_path / "out.jsonl").read_text() == expected


@needs.mark("POSIX")
def test_a_killed_process_leaves_whole_parts_and_no_output(start, job, prompts, expected, tmp_path):
    flags = ("--prompts", prompts, "--seed", 1, "--nsamples", 2, "--json", *FLAGS, "--part_size", 1)
    for attempt in range(20):  # until one is killed before it is done
        out = tmp_path / f"{attempt}.jsonl"
        process = start("generate", "--out", out, *flags)
        while process.poll() is None and not list(tmp_path.glob(f"{attempt}.jsonl.parts/part-*")):
            time.sleep(0.001)
        process.kill()
        process.communicate()
        if not out.exists():
            break
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    lines = expected.splitlines(keepends=True)
    for part in tmp_path.glob(f"{out.name}.parts/part-*"):
        number = int(part.name[-8:])
        assert part.read_text() == "".join(lines[2 * number : 2 * number + 2])
    assert job(out, "--part_size", 1).exit_code == 0
    assert out.read_text() == expected


@needs.mark("POSIX")
def test_being_terminated_leaves_a_job_that_goes_on(start, tmp_path):
    (tmp_path / "many.txt").write_text("A tale\n" * 1000)
    flags = ("--prompts", tmp_path / "many.txt", "--out", tmp_path / "out", "--model", TINY, "--overflow", "slide")
    process = start("generate", *flags, "--length", 60, "--part_size", 1, "--batch_size", 1)
    while process.poll() is None and not list(tmp_path.glob("out.parts/part-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("out.parts/.*"))


@needs.mark("POSIX")
def test_two_jobs_do_not_write_the_same_parts(job, tmp_path):
    with LocalOutput(tmp_path / "out.jsonl").held():
        result = job(tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "another process or run is writing into" in result.stderr


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ray", "a prompt"), "--ray needs --prompts and --out"),
        (("--overwrite", "--out", "x", "a prompt"), "--overwrite needs --prompts and --out"),
        (("--workers", 2), "--workers needs --ray"),
        (("--ray_address", "h:1"), "--ray_address needs --ray"),
        (("--prompts", "{prompts}", "--out", "{out}", "--nsamples", 0), "--nsamples 0 never ends"),
        (("--prompts", "{prompts}", "--out", ""), "'.' is not a file name"),
        (("--prompts", "{prompts}", "--out", "{prompts}/x"), "Not a directory"),
        (("--prompts", "{prompts}", "--out", "nonsense://x/y"), "nonsense"),
        (("--prompts", "{prompts}", "--out", "{out}", "--length", 10**6), "context"),
        (("--prompts", "{prompts}", "--out", "{out}", "--top_k", -1), "top_k"),
        (("--prompts", "nonsense://x/y", "--out", "{out}"), "nonsense"),
        (("--prompts", "memory://nothing/here", "--out", "{out}"), "there are no files at memory://nothing/here"),
        (("--prompts", "{broken}", "--out", "{out}"), "broken.jsonl, line 2: not a JSON object"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(gpt2lab, prompts, store, tmp_path, arguments, message):
    names = {"prompts": prompts, "out": tmp_path / "out", "broken": tmp_path / "broken.jsonl"}
    names["broken"].write_text('{"prompt": "a"}\n{"prompt": \n')
    found = [str(argument).format(**names) for argument in arguments]
    result = gpt2lab("generate", *found, "--model", TINY)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "prompts.jsonl"]


def test_what_is_no_job_of_ours_is_never_removed(job, tmp_path):
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "diary").write_text("mine")
    for more in ((), ("--overwrite",)):
        result = job(tmp_path / "out.jsonl", *more)
        assert result.exit_code == 2
        assert "is not the folder of a job (it has no job.json)" in result.stderr
    assert (tmp_path / "out.jsonl.parts" / "diary").read_text() == "mine"


def test_the_record_of_another_program_is_never_replaced(job, tmp_path):
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "job.json").write_text('{"title": "mine"}')
    for more in ((), ("--overwrite",)):
        assert "job.json is not the record of a job; give another --out" in job(tmp_path / "out.jsonl", *more).stderr
    assert (tmp_path / "out.jsonl.parts" / "job.json").read_text() == '{"title": "mine"}'


@pytest.mark.parametrize("out", ["here", "store"])
def test_a_finished_job_removes_only_its_own_parts(job, store, tmp_path, broken_off, monkeypatch, out):
    name = str(tmp_path / "out.jsonl") if out == "here" else "memory://bucket/out.jsonl"
    broken_off(2)
    job(name)
    monkeypatch.undo()
    (tmp_path / "out.jsonl.parts").mkdir(exist_ok=True)
    (tmp_path / "out.jsonl.parts" / "diary").write_text("mine")
    store.pipe_file("/bucket/out.jsonl.parts/diary", b"mine")
    assert job(name).exit_code == 0
    left = (tmp_path / "out.jsonl.parts").iterdir() if out == "here" else store.ls("/bucket/out.jsonl.parts", False)
    assert [Path(path).name for path in left] == ["diary"]


def test_an_empty_folder_of_parts_that_a_kill_left_is_removed(job, tmp_path):
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl").write_text("whole")
    assert job(tmp_path / "out.jsonl").exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"]


def test_a_damaged_record_can_be_overwritten(job, expected, tmp_path):
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "job.json").write_text("{")
    assert "job.json is damaged; give --overwrite to start again" in job(tmp_path / "out.jsonl").stderr
    assert job(tmp_path / "out.jsonl", "--overwrite").exit_code == 0
    assert (tmp_path / "out.jsonl").read_text() == expected


@pytest.mark.parametrize("method", ["pipe_file", "transaction"])
def test_a_store_that_fails_is_a_line_and_the_job_goes_on_later(job, store, expected, monkeypatch, method):
    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(type(store), method, property(fail) if method == "transaction" else fail)
        result = job("memory://bucket/out.jsonl")
    assert result.exit_code == 2
    assert "cannot write memory://bucket/out.jsonl" in result.stderr
    assert "Traceback" not in result.stderr
    assert not store.exists("/bucket/out.jsonl")
    assert job("memory://bucket/out.jsonl").exit_code == 0
    assert store.cat_file("/bucket/out.jsonl").decode() == expected


def test_nothing_imports_ray_unless_asked_to(prompts, tmp_path):
    code = "from gpt2lab.cli.main import cli; cli(sys.argv[1:])"
    flags = ["generate", "--prompts", str(prompts), "--out", str(tmp_path / "out"), "--model", TINY, "--length", "1"]
    check = (
        "import atexit; atexit.register(lambda: print([n for n in sys.modules if n in ('ray', 'pyarrow', 'fsspec')]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {check}; {code}", *flags], capture_output=True, text=True
    )
    assert told.stdout == "[]\n", told.stderr

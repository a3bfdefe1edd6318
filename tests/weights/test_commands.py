"""``gpt2lab convert``, ``info`` and ``download`` as a user types them."""

import json

import pytest
from click.testing import CliRunner

from gpt2lab.cli.convert import command as convert
from gpt2lab.cli.download import command as download
from gpt2lab.cli.info import command as info
from gpt2lab.cli.main import cli
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.describe import weights_sha256


def run(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)


def test_convert_takes_the_format_from_the_name(golden, tmp_path):
    result = run(convert, golden / "odd", tmp_path / "odd.gguf", "--precision", "float16")
    assert result.exit_code == 0 and result.stdout == ""
    assert "odd.gguf" in result.stderr
    read = open_checkpoint(tmp_path / "odd.gguf")
    assert (read.format, read.precision) == ("gguf", "float16")


def test_convert_overwrites_when_told(golden, tmp_path):
    run(convert, golden / "odd", tmp_path / "m")
    with pytest.raises(CheckpointError, match="--overwrite"):
        run(convert, golden / "odd", tmp_path / "m")
    assert run(convert, golden / "odd", tmp_path / "m", "--overwrite", "--format", "huggingface").exit_code == 0


def test_convert_refuses_an_unknown_precision_before_it_reads(tmp_path):
    result = run(convert, "nowhere", tmp_path / "m", "--precision", "q5_k")
    assert result.exit_code == 2
    assert "q5_k" in result.stderr


def test_info_says_what_a_model_is(golden):
    lines = dict(line.split(maxsplit=1) for line in run(info, golden / "odd").stdout.splitlines())
    assert lines["shape"].split() == ["n_vocab", "307", "n_ctx", "40", "n_embd", "60", "n_head", "5", "n_layer", "2"]
    assert lines["format"] == "openai, float32"
    assert lines["tokenizer"] == "none: prompts are token ids"
    assert lines["exact"].startswith("float32 alone: the others round")


def test_info_json_counts_exactly(golden):
    facts = json.loads(run(info, golden / "tiny", "--json").stdout)
    checkpoint = open_checkpoint(golden / "tiny")
    assert facts["parameters"] == sum(tensor.size for tensor in checkpoint.tensors.values())
    files = [golden / "tiny" / name for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001")]
    assert facts["file_bytes"] == sum(file.stat().st_size for file in files)
    assert facts["memory_bytes"] == 4 * facts["parameters"]
    assert facts["kv_cache_bytes"] == 2 * 3 * 64 * 32 * 4
    assert facts["weights_sha256"] == weights_sha256(checkpoint)


def test_the_hash_is_of_the_weights_and_not_of_the_file(make_checkpoint):
    first, second = make_checkpoint(seed=1), make_checkpoint(seed=2)
    assert weights_sha256(first) == weights_sha256(make_checkpoint(seed=1)) != weights_sha256(second)


@pytest.mark.parametrize("spelling", ["--models_dir", "--models-dir"])
def test_download_passes_its_flags_on(monkeypatch, tmp_path, spelling):
    calls = []

    def fake(size, *, source, models_dir, progress):
        progress("checkpoint")(5, 10)
        calls.append((size, source, models_dir))
        return models_dir / size

    monkeypatch.setattr("gpt2lab.weights.download.download", fake)
    result = run(download, "117M", "--source", "openai", spelling, tmp_path)
    assert result.exit_code == 0
    assert calls == [("117M", "openai", tmp_path)]
    assert result.stdout == "" and "117M" in result.stderr


def test_ctrl_c_in_a_download_says_how_to_go_on(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2lab.weights.download.download", interrupted)
    result = run(download, "124M")
    assert result.exit_code != 0
    assert "run the same command again to resume" in result.stderr


@pytest.mark.parametrize("command", [convert, info, download])
def test_help_reads_well(command):
    text = run(command, "--help").stdout
    assert "gpt2lab" in text or "MODEL" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_download_that_cannot_start_is_one_line():
    result = CliRunner().invoke(cli, ["download", "125M"])
    assert result.exit_code == 2
    known = "released sizes are 124M, 355M, 774M, 1558M; on the hub, a model is called USER/MODEL"
    assert result.stderr == f"gpt2lab: error: unknown size '125M'; {known}\n"

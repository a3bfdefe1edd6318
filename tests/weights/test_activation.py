"""``activation`` is for files that do not record it; a file that does is obeyed."""

import pytest
from click.testing import CliRunner

import needs
from gpt2lab import load
from gpt2lab.cli.main import cli
from gpt2lab.engines.origin import origin_of
from gpt2lab.errors import CheckpointError
from gpt2lab.jobs.generating import digest_of
from gpt2lab.weights import convert, open_checkpoint
from gpt2lab.weights.gguf_file import read_gguf_file


@pytest.fixture
def gguf(tmp_path, make_checkpoint):
    convert(make_checkpoint(), tmp_path / "m.gguf")
    assert "gpt2.activation_function" not in read_gguf_file(tmp_path / "m.gguf", {}).metadata
    return tmp_path / "m.gguf"


def test_a_gguf_that_records_none_takes_the_one_that_is_given(gguf, caplog):
    assert open_checkpoint(gguf).config.activation == "gelu_new"
    assert open_checkpoint(gguf, activation="relu").config.activation == "relu"
    assert not caplog.records


def test_a_copy_records_it(gguf, tmp_path):
    for name in ("hf", "copy.gguf"):
        convert(open_checkpoint(gguf, activation="gelu"), tmp_path / name)
        assert open_checkpoint(tmp_path / name).config.activation == "gelu"
        with pytest.raises(CheckpointError, match="the file records the activation gelu, not relu"):
            open_checkpoint(tmp_path / name, activation="relu")


def test_load_and_the_reference_compute_it(gguf):
    plain, other = (load(gguf, device="reference", activation=name).logits([1, 2]) for name in (None, "relu"))
    assert abs(plain - other).max() > 0.01


def test_an_unknown_activation_is_refused_in_one_line(gguf):
    with pytest.raises(ValueError, match="activation"):
        open_checkpoint(gguf, activation="tanh")


def test_what_was_computed_with_another_activation_has_another_origin(gguf):
    models = [load(gguf, device="reference", activation=name) for name in (None, "gelu_new", "relu")]
    origins = [origin_of(m.checkpoint, m.engine, m.precision, m.kv_precision) for m in models]
    assert origins[0] == origins[1] != origins[2]
    digests = [digest_of(model) for model in models]
    assert digests[0] == digests[1] != digests[2]


def test_commands_take_it(gguf, tmp_path):
    for command in (["info", gguf], ["convert", gguf, tmp_path / "copy"]):
        result = CliRunner().invoke(cli, [*map(str, command), "--activation", "gelu"])
        assert result.exit_code == 0, result.stderr
    assert open_checkpoint(tmp_path / "copy").config.activation == "gelu"


def test_a_new_model_takes_none():
    needs.check("torch")
    result = CliRunner().invoke(cli, ["train", "--dataset", "x", "--from_scratch", "--activation", "gelu"])
    assert result.exit_code == 2
    assert "--activation is for an existing model" in result.stderr

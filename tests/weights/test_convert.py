import errno
import resource

import pytest

from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.weights import convert, open_checkpoint
from gpt2lab.weights.describe import weights_sha256


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_tensorflow_to_huggingface_to_gguf_and_back_is_bit_exact(tmp_path, golden, same, name):
    original = open_checkpoint(golden / name)
    convert(original, tmp_path / "hf")
    convert(open_checkpoint(tmp_path / "hf"), tmp_path / "m.gguf", precision="float32")
    convert(open_checkpoint(tmp_path / "m.gguf"), tmp_path / "again")
    for path in ("hf", "m.gguf", "again"):
        same(open_checkpoint(tmp_path / path), original)
        assert weights_sha256(open_checkpoint(tmp_path / path)) == weights_sha256(original)
    first, last = (tmp_path / path / "model.safetensors" for path in ("hf", "again"))
    assert first.read_bytes() == last.read_bytes()


def test_precision_is_kept_where_the_format_has_it(tmp_path, make_checkpoint):
    convert(make_checkpoint(), tmp_path / "q.gguf", precision="q8_0")
    convert(open_checkpoint(tmp_path / "q.gguf"), tmp_path / "again.gguf")
    assert open_checkpoint(tmp_path / "again.gguf").precision == "q8_0"
    convert(open_checkpoint(tmp_path / "q.gguf"), tmp_path / "hf")
    assert open_checkpoint(tmp_path / "hf").precision == "float32"


def test_format_can_be_said(tmp_path, make_checkpoint):
    convert(make_checkpoint(), tmp_path / "model.bin", format="gguf")
    assert open_checkpoint(tmp_path / "model.bin").format == "gguf"


@pytest.mark.parametrize("wrong", [{"format": "onnx"}, {"precision": "int3"}])
def test_unknown_choices_are_refused(tmp_path, make_checkpoint, wrong):
    with pytest.raises(UsageError, match="must be one of"):
        convert(make_checkpoint(), tmp_path / "x", **wrong)


@pytest.mark.parametrize("name", ["m.gguf", "folder"])
def test_what_exists_is_kept_unless_told(tmp_path, make_checkpoint, same, name):
    old, new = make_checkpoint(seed=1), make_checkpoint(seed=2)
    convert(old, tmp_path / name)
    with pytest.raises(CheckpointError, match="--overwrite"):
        convert(new, tmp_path / name)
    same(open_checkpoint(tmp_path / name), old)
    convert(new, tmp_path / name, overwrite=True)
    same(open_checkpoint(tmp_path / name), new)


def test_overwriting_leaves_a_folder_of_something_else_alone(tmp_path, make_checkpoint):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="another kind of folder"):
        convert(make_checkpoint(), tmp_path / "photos", overwrite=True)
    with pytest.raises(CheckpointError, match="give another name"):
        convert(make_checkpoint(), tmp_path / "photos", format="gguf", overwrite=True)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_overwriting_a_folder_keeps_its_other_files(tmp_path, make_checkpoint):
    convert(make_checkpoint(), tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    convert(make_checkpoint(), tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"


def test_what_somebody_else_wrote_meanwhile_is_kept(tmp_path, make_checkpoint, monkeypatch):
    monkeypatch.setattr(
        "gpt2lab.weights.gguf_writing.write_gguf_file", lambda *_: (tmp_path / "m.gguf").write_text("theirs")
    )
    with pytest.raises(CheckpointError, match="meanwhile"):
        convert(make_checkpoint(), tmp_path / "m.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_text() == "theirs"


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_converting_a_folder_onto_itself(tmp_path, make_checkpoint, same, precision):
    convert(make_checkpoint(), tmp_path / "m", precision=precision)
    before = {name: tensor.copy() for name, tensor in open_checkpoint(tmp_path / "m").tensors.items()}
    convert(open_checkpoint(tmp_path / "m"), tmp_path / "m", overwrite=True)
    after = open_checkpoint(tmp_path / "m")
    assert after.precision == precision
    assert all((after.tensors[name] == tensor).all() for name, tensor in before.items())


def test_converting_a_file_onto_itself(tmp_path, make_checkpoint, same):
    made = make_checkpoint()
    convert(made, tmp_path / "m.gguf")
    convert(open_checkpoint(tmp_path / "m.gguf"), tmp_path / "m.gguf", overwrite=True)
    same(open_checkpoint(tmp_path / "m.gguf"), made)


@pytest.mark.parametrize("name", ["m.gguf", "folder"])
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_stays(tmp_path, make_checkpoint, monkeypatch, name, problem):
    def fail(*_):
        raise problem

    where = "gguf_writing.write_gguf_file" if name == "m.gguf" else "huggingface.write_safetensors"
    monkeypatch.setattr(f"gpt2lab.weights.{where}", fail)
    with pytest.raises((CheckpointError, KeyboardInterrupt)) as raised:
        convert(make_checkpoint(), tmp_path / name)
    assert isinstance(raised.value, KeyboardInterrupt) or "No space left" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.gguf", "folder"])
def test_a_disk_that_takes_no_more_is_one_clear_error(tmp_path, make_checkpoint, name):
    made, limits = make_checkpoint(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=f"cannot write .*{name}"):
            convert(made, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_new_files_have_the_permissions_of_any_other(tmp_path, make_checkpoint):
    (tmp_path / "plain").write_text("")
    expected = (tmp_path / "plain").stat().st_mode
    convert(make_checkpoint(), tmp_path / "m.gguf")
    convert(make_checkpoint(), tmp_path / "hf")
    assert (tmp_path / "m.gguf").stat().st_mode == expected
    assert (tmp_path / "hf" / "config.json").stat().st_mode == expected


@pytest.mark.parametrize("name", ["y.safetensors", "y.bin", "y.pt", "y.npz"])
def test_no_folder_gets_the_name_of_a_file(tmp_path, make_checkpoint, name):
    with pytest.raises(UsageError, match="looks like a file"):
        convert(make_checkpoint(), tmp_path / name)
    assert not (tmp_path / name).exists()

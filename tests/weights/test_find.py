import os
import subprocess
import sys

import pytest

import needs
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import convert, find, open_checkpoint
from gpt2lab.weights.find import find_checkpoint


@pytest.fixture
def models(tmp_path, monkeypatch, make_checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return make_checkpoint()


def test_a_path_counts_before_models_and_models_before_tales(models, tmp_path):
    convert(models, tmp_path / "models" / "tales")
    assert find_checkpoint("tales").resolve() == tmp_path / "models" / "tales"
    convert(models, tmp_path / "tales")
    assert find_checkpoint("tales").resolve() == tmp_path / "tales"


def test_tales_is_the_packaged_model(models, monkeypatch, tmp_path):
    packaged = tmp_path / "assets.gguf"
    packaged.write_bytes(b"x")
    monkeypatch.setattr(find, "TALES", packaged)
    assert find_checkpoint("tales") == packaged


def test_a_file_in_models_goes_by_its_name(models, same):
    convert(models, find.MODELS_DIR / "mine.gguf")
    same(open_checkpoint("mine"), models)


@pytest.mark.parametrize("name", ["117M", "124M", "gpt2"])
def test_aliases_find_a_size_in_models(models, name):
    convert(models, find.MODELS_DIR / "124M")
    assert find_checkpoint(name) == find.MODELS_DIR / "124M"


def test_a_released_size_that_is_nowhere_is_fetched(models, monkeypatch, tmp_path):
    monkeypatch.setattr("gpt2lab.weights.hub.find_or_download", lambda model: tmp_path / model.size)
    assert find_checkpoint("345M") == tmp_path / "355M"


@pytest.mark.parametrize("name", ["", "nothing", "no/such/folder", "a\0b", "../124M", "models/a.gguf", "a b/c", "/a/b"])
def test_an_unknown_name_says_what_there_is(models, name):
    with pytest.raises(CheckpointError, match="124M, 355M"):
        open_checkpoint(name)


def test_a_folder_of_none_or_several_says_so(models, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_checkpoint("empty")
    for name in ("a.gguf", "b.gguf"):
        convert(models, tmp_path / "empty" / name)
    with pytest.raises(CheckpointError, match="holds 2"):
        open_checkpoint("empty")


def test_a_folder_of_one_gguf_and_a_safetensors_file_are_opened(models, same, tmp_path):
    convert(models, tmp_path / "one" / "a.gguf")
    same(open_checkpoint("one"), models)
    convert(models, tmp_path / "hf")
    same(open_checkpoint("hf/model.safetensors"), models)


def test_opening_a_gguf_imports_nothing_heavy(models, tmp_path):
    convert(models, tmp_path / "m.gguf")
    code = (
        "import sys, gpt2lab.weights as w; dict(w.open_checkpoint('m.gguf').tensors);"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'safetensors', 'tiktoken', 'tempfile', 'rich')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


@pytest.mark.parametrize("name", ["m.gguf", "hf"])
def test_opening_a_file_imports_numpy_only_to_read_its_weights(models, tmp_path, name):
    convert(models, tmp_path / name)
    code = (
        f"import sys, gpt2lab.weights as w; opened = w.open_checkpoint({name!r}); before = 'numpy' in sys.modules;"
        "opened.tensors['ln_f.bias']; print(before, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "False True\n"


@needs.mark("POSIX")
def test_what_is_neither_file_nor_folder_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        open_checkpoint(tmp_path / "pipe.gguf")


def test_a_released_size_in_hugging_faces_cache_is_found_without_its_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    repository = tmp_path / "home" / "hub" / "models--openai-community--gpt2-medium"
    folder = repository / "snapshots" / ("c" * 40)
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ImportError):  # incomplete: for the library to fetch
        find_checkpoint("345M")
    (folder / "model.safetensors").write_bytes(b"")
    assert find_checkpoint("345M") == folder
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(ImportError):
        find_checkpoint("345M")


@pytest.mark.parametrize(
    ("folder", "name"), [("345M", "355M"), ("355M", "345m"), ("gpt2-xl", "1542M"), ("117M", "GPT2")]
)
def test_a_size_is_found_in_a_folder_of_any_of_its_names(models, folder, name):
    convert(models, find.MODELS_DIR / folder)
    assert find_checkpoint(name) == find.MODELS_DIR / folder


def test_the_name_of_a_run_points_to_its_folder(models, tmp_path):
    (tmp_path / "checkpoint" / "run1").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"do you mean checkpoint.run1\?"):
        find_checkpoint("run1")


def test_a_path_may_begin_with_the_home_folder(models, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    convert(models, tmp_path / "mine")
    assert find_checkpoint("~/mine") == tmp_path / "mine"

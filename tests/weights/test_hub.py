"""Models of the hub, by name: from a local server that answers as the hub does, and from the cache."""

import json
import sys

import pytest
from hub_server import point_hub_at

import gpt2lab
import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError, DownloadError
from gpt2lab.weights import convert, find_checkpoint, open_checkpoint
from gpt2lab.weights.download import download
from gpt2lab.weights.hub import hub_model

SHAPE = ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1)
NAME = "somebody/finetune"


@pytest.fixture
def model(make_checkpoint):
    return make_checkpoint(SHAPE)


@pytest.fixture
def files(model, tmp_path):
    """Provide the files of a model on the hub: name → bytes."""
    convert(model, tmp_path / "source")
    return {file.name: file.read_bytes() for file in (tmp_path / "source").iterdir()}


def refused(find, name, kind=DownloadError):
    """Return the line with which a model is refused."""
    with pytest.raises(kind) as raised:
        find(name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("somebody/finetune", "somebody/finetune", None),
        ("somebody/finetune@v1.0", "somebody/finetune", "v1.0"),
        ("somebody/finetune@refs/pr/3", "somebody/finetune", "refs/pr/3"),
        ("gpt2@607a30d7", "openai-community/gpt2", "607a30d7"),
        ("1542m", "openai-community/gpt2-xl", None),
        ("distilgpt2", "distilbert/distilgpt2", None),
        ("microsoft/DialoGPT-small", "microsoft/DialoGPT-small", None),
    ],
)
def test_a_name_of_the_hub_is_understood(name, repository, revision):
    assert (hub_model(name).repository, hub_model(name).revision) == (repository, revision)


@pytest.mark.parametrize(
    "name",
    ["tale", "bert-base-uncased", "a/b/c", "../a", "a/..", "a/b@", "a/b@../x", "a--b/c", "a/b.gguf", "~/a", "a b/c"],
)
def test_what_cannot_be_a_name_of_the_hub_asks_nobody(name):
    assert hub_model(name) is None


def test_the_released_sizes_are_known_by_their_repositories():
    assert hub_model("openai-community/gpt2-large").size == "774M"
    assert hub_model(NAME).size is None


def test_a_model_of_the_hub_is_loaded_by_its_name(hub, files, model, same):
    hub.add(NAME, files)
    same(open_checkpoint(NAME), model)
    assert gpt2lab.load(NAME, device="reference").logits("a").shape == (1, SHAPE.n_vocab)


def test_the_second_time_it_comes_from_the_cache(hub, files):
    hub.add(NAME, files)
    folder = find_checkpoint(NAME)
    hub.requests.clear()
    assert find_checkpoint(NAME) == folder
    assert hub.requests == []


def test_a_model_in_the_cache_needs_no_library(hub, files, tmp_path, monkeypatch):
    hub.add(NAME, files)
    folder = find_checkpoint(NAME)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert find_checkpoint(NAME) == folder


def test_a_revision_is_obeyed(hub, files, make_checkpoint, tmp_path, same):
    other = make_checkpoint(SHAPE, seed=1)
    convert(other, tmp_path / "other")
    hub.add(NAME, files)
    hub.add_folder(NAME, tmp_path / "other", revision="v2", commit="d" * 40)
    same(open_checkpoint(f"{NAME}@v2"), other)
    same(open_checkpoint(f"{NAME}@{'d' * 40}"), other)
    assert find_checkpoint(NAME) != find_checkpoint(f"{NAME}@v2") == find_checkpoint(f"{NAME}@{'d' * 40}")


def test_only_what_is_needed_is_fetched(hub, files):
    others = dict.fromkeys(("README.md", "tf_model.h5", "pytorch_model.bin", "training_args.bin", "optimizer.pt"), b"x")
    hub.add(NAME, {**files, **others, "onnx/model.onnx": b"x"})
    find_checkpoint(NAME)
    assert sorted(set(hub.fetched(NAME))) == sorted(files)
    assert hub.fetched(NAME)[-1] == "model.safetensors"


@pytest.mark.parametrize("how", ["cache", "folder"])
def test_chat_templates_with_names_come_along(hub, files, how):
    hub.add(NAME, {**files, "chat_template.jinja": b"{{ a }}", "additional_chat_templates/rag.jinja": b"{{ b }}"})
    if how == "folder":
        download(NAME)
        requests = len(hub.requests)
        download(NAME)
        assert len(hub.requests) == requests
    special = open_checkpoint(NAME).special
    assert (special.chat_template, special.more_templates) == ("{{ a }}", (("rag", "{{ b }}"),))


def test_the_shards_that_an_index_names_are_fetched_and_checked(hub, files, model, same, tmp_path):
    shard = "model-00001-of-00001.safetensors"
    weights = files.pop("model.safetensors")
    size = int.from_bytes(weights[:8], "little")
    names = {name: shard for name in json.loads(weights[8 : 8 + size]) if name != "__metadata__"}
    hub.add(NAME, {**files, "model.safetensors.index.json": json.dumps({"weight_map": names}).encode(), shard: weights})
    hub.replace(NAME, shard, weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "does not have the SHA-256" in refused(find_checkpoint, NAME)
    hub.replace(NAME, shard, weights)
    same(open_checkpoint(NAME), model)


def test_an_index_that_names_files_elsewhere_is_refused(hub, files):
    files.pop("model.safetensors")
    index = json.dumps({"weight_map": {"wte.weight": "../../x.safetensors"}}).encode()
    hub.add(NAME, {**files, "model.safetensors.index.json": index})
    assert "x.safetensors" in refused(find_checkpoint, NAME, CheckpointError)


def test_pytorchs_file_is_taken_where_there_is_nothing_else(hub, files, model, same, tmp_path):
    torch = needs.package("torch")
    tensors = {f"transformer.{name}": torch.from_numpy(tensor) for name, tensor in model.tensors.items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    files.pop("model.safetensors")
    hub.add(NAME, {**files, "pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})
    same(open_checkpoint(NAME), model)


def test_pytorchs_file_without_pytorch_is_refused_before_it_is_fetched(hub, files, monkeypatch):
    monkeypatch.setattr("gpt2lab.weights.hub.find_spec", lambda name: None)
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.add(NAME, files)
    assert "pip install 'gpt2lab[train]'" in refused(find_checkpoint, NAME, CheckpointError)
    assert hub.fetched(NAME) == []


def test_a_path_wins_over_a_name(hub, files, model, make_checkpoint, same, tmp_path):
    hub.add(NAME, files)
    other = make_checkpoint(SHAPE, seed=1)
    convert(other, tmp_path / "somebody" / "finetune")
    same(open_checkpoint(NAME), other)
    assert hub.requests == []


def test_a_download_goes_to_models_where_the_name_finds_it(hub, files, model, same, tmp_path):
    hub.add(NAME, files)
    assert str(download(NAME)) == "models/somebody/finetune"
    same(open_checkpoint(NAME), model)
    hub.requests.clear()
    download(NAME)
    assert hub.requests == []


def test_a_deleted_file_of_a_download_is_fetched_again(hub, files, model, same):
    hub.add(NAME, files)
    folder = download(NAME)
    (folder / "model.safetensors").unlink()
    hub.requests.clear()
    same(open_checkpoint(download(NAME)), model)
    assert "vocab.json" not in hub.fetched(NAME)


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_a_name_that_is_neither_path_nor_repository_says_both(hub, find):
    assert "there is no such path here, and the Hugging Face hub has no repository" in refused(find, NAME)


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_a_missing_revision_is_named(hub, files, find):
    hub.add(NAME, files)
    assert refused(find, f"{NAME}@v9").endswith("has no revision v9: give a branch, a tag or a commit")


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_a_gated_model_says_what_to_do(hub, files, find):
    hub.add(NAME, files)
    hub.gated.add(NAME)
    assert "is gated: accept its terms" in refused(find, NAME)


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_a_model_of_another_kind_is_refused_before_its_weights_are_fetched(hub, files, tmp_path, find):
    hub.add(NAME, {**files, "config.json": b'{"model_type": "llama"}'})
    assert "'llama'" in refused(find, NAME, CheckpointError)
    assert set(hub.fetched(NAME)) == {"config.json"}
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "PEFT adapter"),
        ({"adapter_config.json": b"{}", "config.json": b"{}", "model.safetensors": b"x"}, "PEFT adapter"),
        ({"model-q8_0.gguf": b"x"}, "model-q8_0.gguf"),
        (
            {"config.json": b"{}", "tf_model.h5": b"x"},
            "has no weights (model.safetensors or pytorch_model.bin); its tf_model.h5",
        ),
        ({"README.md": b"x"}, "has no config.json"),
    ],
)
def test_a_repository_without_a_usable_model_says_what_it_has(hub, found, says):
    hub.add(NAME, found)
    assert says in refused(find_checkpoint, NAME, CheckpointError)


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_offline_a_model_that_is_not_in_the_cache_is_one_line(hub, monkeypatch, tmp_path, find):
    point_hub_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    line = refused(find, NAME)
    assert "is this machine online?" in line and "neither a path here nor complete in the hub's cache" in line


def test_a_variable_that_forbids_the_network_is_named(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "(HF_HUB_OFFLINE forbids it)" in refused(find_checkpoint, NAME)


def test_a_cache_without_the_tokenizer_is_not_complete(hub, files, tmp_path):
    hub.add(NAME, files)
    folder = find_checkpoint(NAME)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    hub.requests.clear()
    assert find_checkpoint(NAME) == folder
    assert (folder / "vocab.json").is_file()


def test_a_model_without_a_tokenizer_is_known_offline(hub, files, monkeypatch, tmp_path):
    hub.add(NAME, {name: files[name] for name in ("config.json", "model.safetensors")})
    folder = find_checkpoint(NAME)
    point_hub_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert find_checkpoint(NAME) == folder


def test_openais_bucket_has_only_the_released_sizes():
    with pytest.raises(DownloadError, match="unknown size 'somebody/finetune'"):
        download(NAME, source="openai")

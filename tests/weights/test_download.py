import json
import shutil

import pytest
from http_server import Server
from hub_server import point_hub_at

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.errors import DownloadError, UsageError
from gpt2lab.system.locks import Hold
from gpt2lab.weights import convert, find_checkpoint, open_checkpoint
from gpt2lab.weights import hub as hub_module
from gpt2lab.weights.download import OPENAI_URL_VARIABLE, download
from gpt2lab.weights.vocabulary import gpt2_vocabulary
from tf_bundle import write_bundle

GPT2 = "openai-community/gpt2"
SHAPE = ModelConfig(n_vocab=50257, n_ctx=4, n_embd=4, n_head=1, n_layer=1)
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path, make_checkpoint):
    """Start a server with the seven files of a 124M, but of a much smaller shape."""
    folder = write_bundle(tmp_path / "source", make_checkpoint(SHAPE))
    vocabulary = gpt2_vocabulary()
    (folder / "encoder.json").write_text(json.dumps(vocabulary.encoder))
    merges = "\n".join(["#version: 0.2", *vocabulary.merges, ""])
    (folder / "vocab.bpe").write_text(merges, encoding="utf-8", newline="\n")
    (folder / "model.ckpt.meta").write_bytes(b"meta")
    for file in folder.iterdir():
        server.files[f"/models/124M/{file.name}"] = file.read_bytes()
    monkeypatch.setenv(OPENAI_URL_VARIABLE, f"{server.url}/models/")
    return server


def test_openais_seven_files_make_a_model(bucket, tmp_path, make_checkpoint, same):
    names = []
    folder = download("117M", source="openai", progress=lambda name: names.append(name) or (lambda done, total: None))
    assert str(folder) == "models/124M"
    assert len(names) == 7
    same(open_checkpoint("124M"), make_checkpoint(SHAPE))


def test_a_second_download_checks_and_fetches_nothing(bucket, tmp_path):
    download("124M", source="openai")
    bucket.requests.clear()
    download("124M", source="openai")
    assert bucket.requests == []


def test_only_what_is_missing_is_fetched(bucket, tmp_path):
    folder = download("124M", source="openai")
    (folder / "vocab.bpe").unlink()
    bucket.requests.clear()
    download("124M", source="openai")
    assert [path for _, path, _ in bucket.requests] == ["/models/124M/vocab.bpe"]


def test_a_changed_file_is_reported_and_left_alone(bucket):
    folder = download("124M", source="openai")
    (folder / "hparams.json").write_text("{}")
    with pytest.raises(DownloadError, match=r"hparams\.json has changed"):
        download("124M", source="openai")
    assert (folder / "hparams.json").read_text() == "{}"


def test_a_model_of_other_origin_is_never_replaced(bucket, tmp_path, make_checkpoint):
    shutil.copytree(write_bundle(tmp_path / "mine", make_checkpoint()), "models/124M")
    with pytest.raises(DownloadError, match="this command did not download"):
        download("124M", source="openai")


def test_a_model_under_another_of_its_names_is_not_fetched_again(bucket, tmp_path):
    folder = download("124M", source="openai", models_dir=tmp_path)
    folder.rename(tmp_path / "117M")
    assert download("124M", source="openai", models_dir=tmp_path) == tmp_path / "117M"


def test_sources_are_not_mixed_in_one_folder(bucket):
    download("124M", source="openai")
    with pytest.raises(DownloadError, match="from openai"):
        download("124M", source="huggingface")


def test_weights_with_a_flipped_bit_are_refused(bucket):
    path = f"/models/124M/{DATA}"
    bucket.files[path] = bucket.files[path][:-1] + bytes([bucket.files[path][-1] ^ 1])
    with pytest.raises(DownloadError, match="checksum"):
        download("124M", source="openai")


def test_another_vocabulary_is_refused(bucket):
    bucket.files["/models/124M/vocab.bpe"] = b"#version: 0.2\na b\n"
    with pytest.raises(DownloadError, match="sha256"):
        download("124M", source="openai")


def test_a_size_that_the_bucket_lacks_says_so(bucket):
    with pytest.raises(DownloadError, match="404"):
        download("1558M", source="openai")


@pytest.mark.parametrize(("size", "source"), [("123M", "openai"), ("124M", "ftp"), ("../x", "openai")])
def test_unknown_sizes_and_sources_are_refused(size, source):
    with pytest.raises(DownloadError, match="unknown s"):
        download(size, source=source)


@pytest.fixture
def gpt2_hub(hub, tmp_path, make_checkpoint):
    """Provide a hub with the files of openai-community/gpt2, but of a much smaller model."""
    convert(make_checkpoint(SHAPE), tmp_path / "source")
    hub.add_folder(GPT2, tmp_path / "source")
    return hub


def test_the_hubs_files_make_a_model(gpt2_hub, make_checkpoint, same):
    folder = download("gpt2")
    assert str(folder) == "models/124M"
    same(open_checkpoint("124M"), make_checkpoint(SHAPE))
    gpt2_hub.requests.clear()
    download("gpt2")
    assert gpt2_hub.requests == []


def test_a_name_alone_downloads_to_the_cache_once(gpt2_hub, make_checkpoint, same, tmp_path):
    folder = find_checkpoint("gpt2")
    assert tmp_path / "cache" in folder.parents
    same(open_checkpoint(folder), make_checkpoint(SHAPE))
    gpt2_hub.requests.clear()
    assert find_checkpoint("117M") == folder
    assert gpt2_hub.requests == []


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_weights_of_another_sha256_are_refused_and_fetched_again_next_time(gpt2_hub, make_checkpoint, same, find):
    content = gpt2_hub.files[f"/{GPT2}/resolve/main/model.safetensors"]
    gpt2_hub.replace(GPT2, "model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DownloadError, match="does not have the SHA-256"):
        find("124M")
    gpt2_hub.replace(GPT2, "model.safetensors", content)
    same(open_checkpoint(find("124M")), make_checkpoint(SHAPE))


@needs.mark("POSIX")
def test_two_processes_do_not_download_into_the_same_folder(bucket, tmp_path):
    with Hold() as other:
        other.take(tmp_path / "models" / "124M", create=True)
        with pytest.raises(UsageError, match="another process or run is writing into"):
            download("124M", source="openai")
        assert list((tmp_path / "models" / "124M").iterdir()) == []
    download("124M", source="openai")


@needs.mark("POSIX")
@pytest.mark.parametrize("place", ["blobs", "elsewhere"])
def test_only_contents_in_the_hubs_own_cache_are_deleted_through_a_link(tmp_path, place):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    contents = tmp_path / "models--a--b" / place / "contents"
    for folder in (snapshot, contents.parent):
        folder.mkdir(parents=True)
    contents.write_text("x")
    (snapshot / "model.safetensors").symlink_to(contents)
    hub_module._discard(snapshot / "model.safetensors")
    assert not (snapshot / "model.safetensors").is_symlink()
    assert contents.exists() == (place == "elsewhere")


def test_a_server_that_is_no_hub_is_refused(gpt2_hub):
    gpt2_hub.headers.clear()
    with pytest.raises(DownloadError, match="cannot get"):
        download("124M")


@pytest.mark.parametrize("find", [find_checkpoint, download])
def test_offline_is_one_line_that_names_what_works(gpt2_hub, monkeypatch, tmp_path, find):
    point_hub_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(
        DownloadError, match=r"is this machine online\?.*gpt2lab download 124M --source openai.*tales"
    ) as raised:
        find("124M")
    assert "\n" not in str(raised.value)

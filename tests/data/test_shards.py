import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import needs
import permissions
from gpt2lab.data.encoding import encode_pieces
from gpt2lab.data.open import open_documents
from gpt2lab.data.pieces import Piece
from gpt2lab.data.shards import new_shards, read_shards, write_shards
from gpt2lab.data.vocabulary import vocabulary_hash
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.atomic import PARTIAL
from gpt2lab.system.locks import Hold
from gpt2lab.tokenizer import Tokenizer


def write(path, pieces, tokenizer=None, shard_tokens=10**6, **more):
    tokenizer = tokenizer or Tokenizer.gpt2()
    with new_shards(path, **more) as folder:
        stream = encode_pieces(pieces, tokenizer, jobs=1)
        return write_shards(folder, stream, tokenizer.n_vocab, vocabulary_hash(tokenizer), shard_tokens)


def read(path, tokenizer=None):
    """Return each document's ids, and the mask of each shard."""
    tokenizer = tokenizer or Tokenizer.gpt2()
    shards = read_shards(path, tokenizer.n_vocab, vocabulary_hash(tokenizer))
    return [shard[index].tolist() for shard in shards for index in range(len(shard))], [s.trained for s in shards]


def texts(*documents):
    return [Piece(text, True) for text in documents]


@given(
    st.lists(st.sampled_from(["a", "b c d", "", "e f g h i"]), min_size=1, max_size=8).filter(any), st.integers(1, 12)
)
def test_documents_come_back_whole_from_any_number_of_shards(tmp_path_factory, documents, shard_tokens):
    path = tmp_path_factory.mktemp("shards") / "out"
    totals = write(path, texts(*documents), shard_tokens=shard_tokens)
    encoded = [Tokenizer.gpt2().encode(text) for text in documents if text]
    assert read(path)[0] == encoded
    files = sorted(path.iterdir())
    assert (totals.documents, totals.tokens) == (len(encoded), sum(map(len, encoded)))
    assert (totals.n_bytes, totals.shards) == (sum(map(len, documents)), len(files))
    assert [file.name for file in files] == [f"tokens-{n:05d}.safetensors" for n in range(1, len(files) + 1)]


def test_what_is_not_learned_is_marked_where_there_is_any(tmp_path):
    pieces = [*texts("one two", "three"), Piece("not this", False, False), Piece(" but this", True)]
    write(tmp_path / "out", pieces, shard_tokens=2)
    masks = read(tmp_path / "out")[1]
    assert masks[0] is None
    assert masks[-1][:].tolist() == [1, 0, 0, 1, 1]


def test_the_safetensors_package_reads_them(tmp_path):
    write(tmp_path / "out", texts("one two three", "four five"))
    tensors = safetensors.numpy.load_file(tmp_path / "out" / "tokens-00001.safetensors")
    assert tensors["tokens"].dtype == np.uint16
    assert tensors["documents"].tolist() == [0, 3]
    assert tensors["characters"].tolist() == [13, 9]


def test_many_shards_open_as_one_dataset(tmp_path, gpt2):
    write(tmp_path / "out", texts("one two", "three", "four five six"), shard_tokens=1)
    (tmp_path / "more.jsonl").write_text('{"prompt": "why?", "completion": "so"}')
    found = open_documents([str(tmp_path / "out"), str(tmp_path / "more.jsonl")], gpt2)
    expected = ["one two", "three", "four five six", "why?so"]
    assert sorted(gpt2.decode(found[index].tolist()) for index in range(len(found))) == sorted(expected)
    assert found.trained.take(np.arange(len(found.tokens))).sum() == len(found.tokens) - 2
    assert found.characters.sum() == sum(map(len, expected))


def test_one_shard_of_many_can_be_opened(tmp_path, gpt2):
    write(tmp_path / "out", texts("one two", "three"), shard_tokens=1)
    found = open_documents([str(tmp_path / "out" / "tokens-00002.safetensors")], gpt2)
    assert found.tokens[:].tolist() == gpt2.encode("three")


def test_a_large_vocabulary_takes_32_bits(tmp_path):
    encoder = Tokenizer.gpt2().encoder()
    large = Tokenizer.from_files({**encoder, "far": 70_000}, Tokenizer.gpt2().merges())
    write(tmp_path / "out", texts("one two"), large)
    assert read(tmp_path / "out", large)[0] == [large.encode("one two")]


# ---- atomic ---------------------------------------------------------------------------------------------------------


def fail(path, **more):
    with pytest.raises(KeyboardInterrupt), new_shards(path, **more) as folder:
        (folder / "tokens-00001.safetensors").write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_nothing(tmp_path):
    fail(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_the_old_dataset(tmp_path):
    write(tmp_path / "out", texts("old"))
    fail(tmp_path / "out", overwrite=True)
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("old")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleaned_up(tmp_path):
    for name in (f"out{PARTIAL}", f"out.old{PARTIAL}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens-00001.safetensors").write_text("half")
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", texts("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("new")]


@pytest.mark.parametrize("name", ["out.partial", "out.old.partial"])
def test_folders_with_the_names_of_other_programs_are_not_touched(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "tokens-00001.safetensors").write_text("mine")
    write(tmp_path / "out", texts("new"))
    assert (tmp_path / name / "tokens-00001.safetensors").read_text() == "mine"


@pytest.mark.parametrize("name", [f"out{PARTIAL}", f"out.old{PARTIAL}"])
def test_a_file_of_another_origin_in_a_folder_to_delete_is_kept(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="contains files that gpt2lab encode did not write"):
        write(tmp_path / "out", texts("new"))
    assert (tmp_path / name / "notes.txt").read_text() == "mine"


@needs.mark("POSIX")
def test_a_link_to_a_dataset_is_replaced_and_the_dataset_behind_it_stays(tmp_path):
    write(tmp_path / "elsewhere", texts("old"))
    (tmp_path / "out").symlink_to("elsewhere")
    write(tmp_path / "out", texts("new"), overwrite=True)
    assert read(tmp_path / "elsewhere")[0] == [Tokenizer.gpt2().encode("old")]
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("new")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]


def test_a_dataset_that_a_kill_moved_aside_is_found_again(tmp_path):
    write(tmp_path / "out", texts("old"))
    (tmp_path / "out").rename(tmp_path / f"out.old{PARTIAL}")
    with pytest.raises(UsageError, match="already exists"):
        write(tmp_path / "out", texts("new"))
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("old")]


def test_an_interrupt_between_the_two_renames_leaves_the_old_dataset(tmp_path, monkeypatch):
    write(tmp_path / "out", texts("old"))
    replace = Path.replace

    def interrupted(path, target):
        if path.name == f"out{PARTIAL}":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", texts("new"), overwrite=True)
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("old")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_dataset_that_could_not_be_put_back_is_kept_and_found_again(tmp_path, monkeypatch):
    write(tmp_path / "out", texts("old"))
    replace = Path.replace

    def broken(path, target):
        if target == tmp_path / "out":
            raise OSError(5, "Input/output error")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        with pytest.raises(UsageError, match="Input/output error"):
            write(tmp_path / "out", texts("new"), overwrite=True)
    with pytest.raises(UsageError, match="already exists"):
        write(tmp_path / "out", texts("new"))
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("old")]


def test_overwriting_leaves_none_of_the_old_files(tmp_path):
    write(tmp_path / "out", texts("one", "two", "three"), shard_tokens=1)
    write(tmp_path / "out", texts("new"), overwrite=True)
    assert read(tmp_path / "out")[0] == [Tokenizer.gpt2().encode("new")]


def test_what_is_something_else_is_never_overwritten(tmp_path):
    write(tmp_path / "out", texts("one"))
    (tmp_path / "out" / "diary.txt").write_text("dear")
    for path in (tmp_path / "out", tmp_path / "out" / "diary.txt"):
        with pytest.raises(UsageError, match="is not an encoded dataset"):
            write(path, texts("new"), overwrite=True)
    assert (tmp_path / "out" / "diary.txt").read_text() == "dear"


@needs.mark("a user whom permissions bind")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with permissions.binding(), pytest.raises(UsageError, match="cannot write"):
        write(tmp_path / "closed" / "out", texts("a"))


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"cannot write .*file"):
        write(tmp_path / "file" / "out", texts("a"))


# ---- damaged or another's -------------------------------------------------------------------------------------------


def test_another_vocabulary_is_refused(tmp_path, bytewise):
    write(tmp_path / "out", texts("one"))
    with pytest.raises(UsageError, match="encoded with another vocabulary, of 50257 tokens"):
        read(tmp_path / "out", bytewise)


def test_weights_are_no_tokens(tmp_path):
    safetensors.numpy.save_file({"wte.weight": np.zeros(3, np.float32)}, tmp_path / "tokens-00001.safetensors")
    with pytest.raises(UsageError, match="was not written by gpt2lab encode"):
        read(tmp_path)


@given(st.data())
def test_a_damaged_shard_is_an_error_of_one_line_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("shards") / "out"
    write(path, texts("one two three", "four", "five six"))
    file = path / "tokens-00001.safetensors"
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        place = st.integers(0, 400) | st.integers(1024, len(content) - 1)
        content[data.draw(place)] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        read(path)
    except (UsageError, CheckpointError) as error:
        assert "\n" not in str(error)


def test_a_shard_tells_the_bytes_of_its_own_text(tmp_path):
    write(tmp_path / "out", texts("one two", "tree", "é"), shard_tokens=1)
    files = sorted((tmp_path / "out").iterdir())
    assert [safetensors_metadata(file)["bytes"] for file in files] == ["7", "4", "2"]


def safetensors_metadata(path):
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]


def test_two_processes_do_not_write_the_same_dataset(tmp_path):
    partial = tmp_path / f"out{PARTIAL}"
    partial.mkdir()
    (partial / "tokens-00001.safetensors").touch()
    with Hold() as other:
        other.take(partial)
        with pytest.raises(UsageError, match=r"another process or run is writing into .*out\.gpt2lab\.partial"):
            write(tmp_path / "out", texts("new"))
    assert (partial / "tokens-00001.safetensors").exists()
    write(tmp_path / "out", texts("new"))


def test_a_missing_shard_is_told(tmp_path):
    write(tmp_path / "out", texts("one", "two", "three"), shard_tokens=1)
    (tmp_path / "out" / "tokens-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks tokens-00002\.safetensors: encode it again"):
        read(tmp_path / "out")

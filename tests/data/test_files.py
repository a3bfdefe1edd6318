import bz2
import encodings.aliases
import gzip
import io
import lzma
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
from gpt2lab.data import files
from gpt2lab.data.files import Reading, Source, open_bytes, text_blocks
from gpt2lab.data.finding import Choice, find_sources
from gpt2lab.errors import UsageError
from gpt2lab.system.marks import write_mark


def text_of(path, **reading):
    (source,) = find_sources([str(path)])
    with open_bytes(source) as stream:
        return "".join(text_blocks(stream, source.name, Reading(**reading)))


def kinds(*paths, **reading):
    return [(source.path and source.path.name, source.kind) for source in find_sources(paths, Reading(**reading))]


# ---- finding --------------------------------------------------------------------------------------------------------


def test_folders_files_and_patterns_name_each_file_once(tmp_path):
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "a.txt", tmp_path / "b[1].txt", tmp_path / "deep" / "c.txt"]
    for file in [*files, tmp_path / "no.py"]:
        file.write_text("x")
    found = find_sources([str(tmp_path), str(files[0]), str(tmp_path / "*.txt")])
    assert [source.path for source in found] == files
    assert kinds(str(tmp_path / "no.py")) == [("no.py", "text")]
    assert kinds(str(tmp_path / "b[1].txt")) == [("b[1].txt", "text")]


def test_a_folder_is_searched_for_all_that_can_be_read(tmp_path):
    names = ["a.TXT", "b.jsonl.gz", "c.ndjson", "d.csv.zst", "e.tsv", "f.npz", "g.md", "h.json", "i.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    expected = ["text", "jsonl", "jsonl", "csv", "tsv", "npz", "text"]
    assert kinds(str(tmp_path)) == list(zip(names, expected, strict=False))


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UsageError, match="is empty"):
        find_sources([""])


def test_files_of_a_folder_that_are_left_out_are_counted_by_ending(tmp_path):
    for name in ("a.txt", "b.py", "c.py", "d.png", ".e.py"):
        (tmp_path / name).touch()
    said = []
    find_sources([str(tmp_path)], say=said.append)
    assert said == [f"{tmp_path}: files read: 1, skipped: 3 (2 .py, 1 .png); --include '*.py' would read only those"]


def test_patterns_choose_the_files_of_a_folder(tmp_path):
    for name in ("a.txt", "b.py", "deep/c.py", "deep/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(include, exclude):
        return [source.path.name for source in find_sources([str(tmp_path)], choice=Choice(include, exclude))]

    assert names(("*.py",), ()) == ["b.py", "c.py"]
    assert names((), ("deep/*",)) == ["a.txt"]
    assert names(("*.py", "*.txt"), ("a*",)) == ["b.py", "c.py", "d.txt"]


def test_a_zip_is_searched_like_a_folder_without_what_macos_adds(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("b.txt", "deep/c.jsonl", "__MACOSX/._b.txt", "deep/._c.txt", ".d/e.txt", "f.png"):
            archive.writestr(name, '{"text": "x"}')
    said = []
    found = find_sources([str(tmp_path / "a.zip")], say=said.append)
    assert [(source.member, source.kind) for source in found] == [("b.txt", "text"), ("deep/c.jsonl", "jsonl")]
    assert len(said) == 1
    with open_bytes(found[0]) as stream:
        assert stream.read() == b'{"text": "x"}'


def test_other_names_are_what_the_options_say(tmp_path):
    (tmp_path / "data").touch()
    path = str(tmp_path / "data")
    assert [kinds(path, **more)[0][1] for more in ({}, {"field": "a"}, {"column": "a"})] == ["text", "jsonl", "csv"]
    assert kinds("-", field="a") == [(None, "jsonl")]


def test_hidden_files_of_a_folder_are_left_out(tmp_path):
    for name in ("a.txt", ".b.txt", ".git/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [source.name for source in find_sources([str(tmp_path)])] == [str(tmp_path / "a.txt")]


def test_a_folder_of_shards_is_one_source(tmp_path):
    (tmp_path / "tokens-00001.safetensors").write_bytes(b"12345")
    (source,) = find_sources([str(tmp_path)])
    assert (source.kind, source.path, source.size) == ("shards", tmp_path, 5)


def test_what_a_killed_run_left_is_no_data(tmp_path):
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    assert kinds(str(tmp_path)) == [("b.txt", "text")]


def test_what_training_wrote_into_a_run_folder_is_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "run/merges.txt", "run/metrics.jsonl", "run/state-1/merges.txt", "run/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text")
    write_mark(Path("run"), ["merges.txt", "metrics*.jsonl", "state-*"])
    for path in (".", "**/*.*"):
        assert [source.name for source in find_sources([path])] == ["a.txt", "run/notes.txt"]
    assert [source.name for source in find_sources(["run/merges.txt"])] == ["run/merges.txt"]


def test_the_merge_list_beside_a_vocabulary_is_no_text_unless_asked_for(tmp_path):
    for name in ("model/merges.txt", "model/vocab.json", "other/merges.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    said = []
    found = find_sources([str(tmp_path)], say=said.append)
    assert [source.name for source in found] == [str(tmp_path / "other" / "merges.txt")]
    assert said[0].startswith(f"{tmp_path}: files read: 1, skipped: 2 (")
    assert len(find_sources([str(tmp_path)], choice=Choice(("merges.txt",), ()))) == 2


@pytest.mark.parametrize("out", ["d/all.npz", "d/out.jsonl"])
def test_an_output_in_a_folder_or_pattern_is_no_input(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    for name in ("d/a.npz", "d/a.txt", out, f"{out}.parts/part-1.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text")
    outputs = [Path(out), Path(f"{out}.parts")]
    for path in ("d", str(tmp_path / "d"), "**/*.*"):
        names = [Path(source.name).name for source in find_sources([path], outputs=outputs)]
        assert names == ["a.npz", "a.txt"]
    assert [source.name for source in find_sources([out], outputs=outputs)] == [out]


@pytest.mark.parametrize("name", ["nowhere", "*.txt", "."])
def test_a_path_with_nothing_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        find_sources([name])
    assert f"no text at {name}:" in str(error.value)


# ---- reading --------------------------------------------------------------------------------------------------------


@given(st.text(), st.sampled_from([1, 2, 3, 1000]), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_text_is_the_same_however_it_is_cut_into_blocks(text, block, encoding):
    stream = io.BytesIO(text.encode(encoding, "replace"))
    expected = io.TextIOWrapper(io.BytesIO(stream.getvalue()), encoding=encoding).read().removeprefix("\ufeff")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        if "\0" not in text:
            assert "".join(text_blocks(stream, "x", Reading(encoding=encoding))) == expected


@given(st.binary(max_size=60), st.sampled_from([1, 2, 3, 1000]))
def test_what_is_no_utf8_is_named_with_its_place(data, block):
    data = data.replace(b"\0", b"x")
    try:
        data.decode()
    except UnicodeDecodeError as expected:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "BLOCK", block)
            with pytest.raises(UsageError, match=rf"name is not UTF-8 text \(byte {expected.start}, line \d+\)"):
                list(text_blocks(io.BytesIO(data), "name", Reading()))


def test_bytes_that_are_no_text_can_be_replaced_or_left_out(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\xffb")
    assert text_of(tmp_path / "a.txt", errors="replace") == "a\ufffdb"
    assert text_of(tmp_path / "a.txt", errors="ignore") == "ab"
    assert text_of(tmp_path / "a.txt", encoding="latin-1") == "aÿb"


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\r\n\0")
    with pytest.raises(UsageError, match=r"a.txt is a binary file, not text \(byte 6 is 0\)"):
        text_of(tmp_path / "a.txt", errors="replace")


@pytest.mark.parametrize("encoding", ["klingon", "hex", "undefined", "", "a\0b"])
def test_an_unknown_encoding_is_named(encoding):
    with pytest.raises(UsageError, match="unknown encoding"):
        Reading(encoding=encoding)


@pytest.mark.parametrize("spelling", ["utf16", "UTF_16", "u16", "utf-16"])
def test_every_spelling_of_an_encoding_is_read(tmp_path, spelling):
    (tmp_path / "a.txt").write_text("Käthe\r\n", encoding="utf-16", newline="")
    assert text_of(tmp_path / "a.txt", encoding=spelling) == "Käthe\n"


def test_no_encoding_lets_half_a_surrogate_pair_pass(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\\ud800")
    with pytest.raises(UsageError, match="is not unicode-escape text"):
        text_of(tmp_path / "a.txt", encoding="unicode_escape")
    assert text_of(tmp_path / "a.txt", encoding="unicode_escape", errors="replace") == "\ufffd"


@pytest.mark.parametrize("encoding", sorted(set(encodings.aliases.aliases.values())))
def test_every_encoding_reads_text_or_says_why_not(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(bytes(range(255, 0, -1)))
    try:
        assert isinstance(text_of(tmp_path / "a.txt", encoding=encoding), str)
    except UsageError as error:
        assert "\n" not in str(error)


def test_compressed_text_is_read_whatever_its_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"packed " * 1000))
    assert text_of(tmp_path / "a.txt") == "packed " * 1000


@pytest.mark.parametrize(("compress", "kind"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_other_compressions_are_named(tmp_path, compress, kind):
    (tmp_path / "a.txt").write_bytes(compress(b"Once upon a time."))
    with pytest.raises(UsageError, match=f"compressed with {kind}: decompress it"):
        text_of(tmp_path / "a.txt")


def test_zstd_is_read_or_what_it_needs_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.txt.zst").write_bytes(bytes.fromhex("28b52ffd 20 02 110000 6869".replace(" ", "")))
    for module in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match="pip install zstandard"):
        text_of(tmp_path / "a.txt.zst")
    monkeypatch.undo()
    try:
        from compression import zstd  # noqa: F401
    except ModuleNotFoundError:
        needs.check("zstandard")
    assert text_of(tmp_path / "a.txt.zst") == "hi"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:]])
def test_damaged_compression_is_said(tmp_path, damage):
    (tmp_path / "a.txt.gz").write_bytes(damage(gzip.compress(bytes(range(1, 120)) * 9)))
    with pytest.raises(UsageError, match=r"a.txt.gz: the compressed data is damaged"):
        text_of(tmp_path / "a.txt.gz", errors="replace")


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read gone"), open_bytes(Source("gone", "text", tmp_path / "x", 0)):
        pass


def test_bytes_are_counted_as_they_are_stored(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 10**6))
    (source,) = find_sources([str(tmp_path / "a.txt.gz")])
    counted = []
    with open_bytes(source, counted.append) as stream:
        stream.read()
    assert sum(counted) == source.size < 10_000

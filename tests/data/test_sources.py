import csv
import importlib
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import needs
from gpt2lab.data import files
from gpt2lab.data.cuts import last_cut
from gpt2lab.data.files import Reading
from gpt2lab.data.finding import find_sources
from gpt2lab.data.sources import read_pieces
from gpt2lab.errors import UsageError
from gpt2lab.tokenizer import Tokenizer

WORDS = [*" \n\t.,。！“'|_-é日\x1c\xa0", "a", "Ab", "'s", "'ll", "7", "  ", "<|endoftext|>", "x.y", "\r\n"]
texts = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


def pieces_of(path, block=1000, said=None, **reading):
    reading = Reading(**reading)
    (source,) = find_sources([str(path)], reading)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        return list(read_pieces(source, reading, (said if said is not None else []).append))


def documents_of(path, **more):
    """Return the documents, each as a list of (text, trained)."""
    documents, current = [], []
    for text, ends, trained in pieces_of(path, **more):
        current.append((text, trained))
        if ends:
            documents.append(current)
            current = []
    assert not current
    return documents


def plain(path, **more):
    return ["".join(text for text, _ in document) for document in documents_of(path, **more)]


@pytest.fixture
def write(tmp_path):
    def to_file(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return to_file


# ---- text -----------------------------------------------------------------------------------------------------------


def test_a_text_file_is_one_document(write):
    assert plain(write("a.txt", "one\n\ntwo\r\nthree\n")) == ["one\n\ntwo\nthree\n"]


def test_the_spelled_out_marker_separates_documents(write):
    assert plain(write("a.txt", "one<|endoftext|>two\n<|endoftext|>"), block=7) == ["one", "two\n", ""]


@given(texts)
@example("a" * 20_000 + " b")
@example("猫在睡觉。狗在跑")
@example("７、八！it's 9:30—“no”…")
def test_a_text_is_cut_where_no_id_changes(text):
    cut = last_cut(text)
    encode = Tokenizer.gpt2().encode
    assert encode(text[:cut]) + encode(text[cut:]) == encode(text)


@given(texts, st.sampled_from([1, 3, 10, 1000]))
def test_pieces_of_a_text_have_the_ids_of_the_whole(tmp_path_factory, text, block):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    whole = text.replace("\r\n", "\n").split("<|endoftext|>")
    encode = Tokenizer.gpt2().encode
    found = [[id for text, _ in document for id in encode(text)] for document in documents_of(path, block=block)]
    assert found == [encode(document) for document in whole]


@pytest.mark.parametrize("sentence", ["猫在睡觉，狗在跑。", "ニャー、と鳴いた。", "a-b."])
def test_a_text_without_blanks_comes_in_pieces_too(write, sentence):
    lengths = [len(piece.text) for piece in pieces_of(write("a.txt", sentence * 5_000), block=4096)]
    assert max(lengths) < 5000


def test_a_long_text_comes_in_pieces_of_about_a_block(write):
    lengths = [len(piece.text) for piece in pieces_of(write("a.txt", "some words " * 10_000), block=4096)]
    assert max(lengths) < 5000


# ---- JSON lines -----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(), min_size=1, max_size=5), st.sampled_from([1, 5, 1000]), st.booleans())
def test_json_lines_are_documents(tmp_path_factory, texts, block, ascii):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=ascii) for text in texts), encoding="utf-8")
    assert plain(path, block=block) == texts


def test_the_marker_in_a_record_is_text(write):
    assert plain(write("a.jsonl", '{"text": "a<|endoftext|>b"}')) == ["a<|endoftext|>b"]


def test_a_field_is_chosen_by_name(write):
    assert plain(write("a.jsonl", '{"body": "b", "text": "t"}'), field="body") == ["b"]


@pytest.mark.parametrize(
    ("record", "field"),
    [('{"prompt": "p", "completion": "c"}', None), ('{"q": "p", "text": "t", "a": "c"}', "q,a")],
)
def test_a_prompt_is_not_trained_on(write, record, field):
    assert documents_of(write("a.jsonl", record), field=field) == [[("p", False), ("c", True)]]


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ('{"body": "b", "n": 3}', None, r"a.jsonl, line 1: no text in field 'text'; fields with text: body \(--field"),
        ('\n{"n": 3}', "n", r"line 2: no text in field 'n'; fields with text: none"),
        ("plain text", None, r"a.jsonl, line 1: not a JSON object"),
        ('{"a": "x"}', "a,b,c", r"--field must be one name, or two"),
    ],
)
def test_if_the_first_record_does_not_fit_it_is_an_error(write, content, field, message):
    with pytest.raises(UsageError, match=message):
        plain(write("a.jsonl", content), field=field)


def test_later_records_that_do_not_fit_are_skipped_and_counted(write):
    said = []
    lines = ['{"text": "a"}', '{"text": 3}', "", "[]", '{"text": "\\ud800"}', '{"text": "b"}', '{"text": "c']
    path = write("a.jsonl", "\n".join(lines))
    assert plain(path, said=said, errors="skip") == ["a", "b"]
    assert said[0].endswith(
        "a.jsonl: 4 of 6 records skipped, at line 2, 4, 5, 7: "
        "2 not a JSON object, 1 without text in text, 1 with an unpaired surrogate"
    )


# ---- CSV ------------------------------------------------------------------------------------------------------------

cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=12)


@given(st.lists(st.tuples(cells, cells.filter(bool)), min_size=1, max_size=6), st.sampled_from([1, 7, 1000]))
def test_rows_are_documents_newlines_inside_fields_included(tmp_path_factory, rows, block):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    out = io.StringIO()
    csv.writer(out).writerows([("id", "text"), *rows])
    path.write_bytes(out.getvalue().encode())
    assert plain(path, block=block) == [text for _, text in rows]


@pytest.mark.parametrize(
    ("content", "column", "expected", "told"),
    [
        ("text\nhello there\n", None, ["hello there"], "column text of 1; the first line is a header"),
        ("hello there, all\n", "1", ["hello there"], "column 1 of 2; there is no header"),
        ("Is it a title?\nNo.\n", None, ["Is it a title?", "No."], "column 1 of 1; there is no header"),
        ("lyrics\nla la la!\n", None, ["la la la!"], "column lyrics of 1; the first line is a header"),
        ("id;song title\n1;a b c\n", "song title", ["a b c"], "column song title of 2"),
        ("id\tbody\n1\tx, y\n", "2", ["x, y"], "column body of 2; the first line is a header"),
        ("one line\n", None, ["one line"], "there is no header"),
        ("1,2\n3,4\n", "2", ["2", "4"], "column 2 of 2; there is no header"),
    ],
)
def test_columns_and_headers_are_told_apart(write, content, column, expected, told):
    said = []
    assert plain(write("a.csv", content), column=column, said=said) == expected
    assert told in said[0]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("id,body\n1,x y z\n", None, "a.csv has several columns; choose one with --column: id, body"),
        ("id,body\n1,x y z\n", "txt", "a.csv has no column 'txt'; choose one with --column: id, body"),
        ("1,2\n3,4\n", "3", "a.csv has no column '3'; choose one with --column: 1 to 2"),
        ('"a"b,c\nd\n', None, "a.csv, line 1: not a row of CSV"),
    ],
)
def test_a_wrong_column_is_an_error_that_names_the_others(write, content, column, message):
    with pytest.raises(UsageError, match=message):
        plain(write("a.csv", content), column=column)


def test_rows_that_do_not_fit_are_skipped_and_counted(write):
    said = []
    content = 'id,text\n1,good\n2\n3,\n\n4,"bad"x\n5,fine\n'
    assert plain(write("a.csv", content), said=said, errors="skip") == ["good", "fine"]
    assert said[1].endswith("a.csv: 3 of 5 rows skipped, at line 3, 4, 6: 1 too short, 1 empty, 1 malformed")


def test_a_row_with_too_many_cells_is_skipped_and_its_line_is_named(write):
    said = []
    content = "id,text\n" + "0,fine\n" * 200 + "1,Hello there, said the fox\n"
    assert plain(write("a.csv", content), said=said) == ["fine"] * 200
    assert said[1].endswith("a.csv: 1 of 201 rows skipped, at line 202: 1 with more than 2 cells")


@pytest.mark.parametrize(("name", "bad"), [("a.csv", "x"), ("a.tsv", "x"), ("a.jsonl", "[]")])
def test_a_file_of_mostly_unusable_records_is_not_read_to_its_end(write, name, bad):
    first = '{"text": "one"}' if name == "a.jsonl" else "id\ttext\n1\tone"
    content = f"{first}\n" + f"{bad}\n" * 2000
    path = write(name, content.encode() + b"\xff")  # this byte alone would be an error
    with pytest.raises(UsageError, match=r"a\.\w+: 1,000 of the first 1,001 \w+ skipped, .* --errors skip"):
        plain(path)


def test_unusable_records_at_the_start_do_not_stop_a_reader_that_skips_any_number(write):
    path = write("a.jsonl", '{"text": "one"}\n' + "[]\n" * 2000 + '{"text": "two"}\n')
    assert plain(path, errors="skip") == ["one", "two"]


def test_more_than_one_row_in_a_hundred_skipped_is_an_error_unless_wanted(write):
    path = write("a.csv", "id,text\n1,Hello there, said the fox\n2,fine\n")
    with pytest.raises(UsageError, match=r"1 of 2 rows skipped, at line 2: .* more than 1 %.*--errors skip"):
        plain(path)
    assert plain(path, errors="skip") == ["fine"]


def test_empty_rows_lose_nothing_and_are_no_error(write):
    assert plain(write("a.csv", "id,text\n1,\n2,fine\n")) == ["fine"]


def test_an_open_quote_is_reported_at_its_own_line_with_what_it_swallows(write):
    rows = [f"{n},text {n}" for n in range(1000)]
    rows[4] = '4,"text 4'
    path = write("a.csv", "id,text\n" + "\n".join(rows) + "\n")
    with pytest.raises(
        UsageError, match="996 of 1,000 rows skipped, at line 6: 996 swallowed by a quote that opens at line 6 and"
    ):
        plain(path)


def test_a_quote_in_tsv_is_an_ordinary_character(write):
    content = 'id\ttext\n1\t"Well\n2\tsaid "he"\n'
    assert plain(write("a.tsv", content)) == ['"Well', 'said "he"']


def test_names_of_columns_have_no_blanks_around_them(write):
    assert plain(write("a.csv", "id, text\n1,hello there\n")) == ["hello there"]


# ---- JSON arrays ----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(), min_size=1, max_size=5), st.sampled_from([1, 5, 1000]), st.sampled_from([None, 2]))
def test_a_json_array_holds_documents(tmp_path_factory, texts, block, indent):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps([{"n": [1, {}], "text": text} for text in texts], indent=indent), encoding="utf-8")
    assert plain(path, block=block) == texts


@pytest.mark.parametrize("block", range(1, 12))
def test_a_json_number_may_be_cut_by_the_end_of_a_block(write, block):
    path = write("a.json", '[{"text": "a"}, 12345, {"text": "b"}, -1.5e3]')
    assert plain(path, block=block, errors="skip") == ["a", "b"]


def test_json_may_hold_objects_one_after_another(write):
    assert plain(write("a.json", '{"text": "a"}\n{\n"text": "b"}\n')) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n{"text": }]', r"a.json, line 2: not JSON \("),
        ('[{"text": "a"}\n{"text": "b"}]', r"line 2: not JSON \(a , or \] is missing"),
        ('[{"text": "a"}] x', r"line 1: not JSON \(text follows"),
        ("[" * 100_000, r"line 1: not (JSON|a JSON object)"),
        ('["a"]', r"line 1: not a JSON object"),
    ],
)
def test_what_is_no_json_is_named_with_its_line(write, content, message):
    with pytest.raises(UsageError, match=message):
        plain(write("a.json", content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_surrogate_pair_is_an_error_at_its_line(write, name):
    path = write(name, '{"text": "a"}\n{"text": "b\\ud800"}')
    with pytest.raises(UsageError, match=rf"{name}, line 2: an unpaired surrogate \(.ud800\).*--errors replace"):
        plain(path)
    assert plain(path, errors="replace") == ["a", "b\ufffd"]
    assert plain(path, errors="ignore") == ["a", "b"]
    assert plain(path, errors="skip") == ["a"]


# ---- Parquet --------------------------------------------------------------------------------------------------------


def test_the_rows_of_parquet_are_documents(tmp_path):
    pyarrow = needs.package("pyarrow")
    table = pyarrow.Table.from_pylist([{"n": 1, "body": "a"}, {"n": 2, "body": "b"}])
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    assert plain(tmp_path / "a.parquet", field="body") == plain(tmp_path / "a.parquet", column="body") == ["a", "b"]


def test_parquet_without_pyarrow_names_the_extra(write, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.records.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"a.parquet needs pyarrow: pip install 'gpt2lab\[parquet\]'"):
        plain(write("a.parquet", "PAR1"))


def test_a_quote_that_is_never_closed_costs_no_memory_without_end(write, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.tables.MAX_RECORD", 200_000)
    monkeypatch.setattr(csv, "field_size_limit", lambda limit=None, real=csv.field_size_limit: real(200_000))
    content = 'id,text\n1,"never closed\n' + "2,more words\n" * 50_000
    said = []
    found = plain(write("a.csv", content), said=said, block=1 << 16, errors="skip")
    assert 0 < len(found) < 50_000
    assert "swallowed by a quote that opens at line 2" in said[1]


def test_an_empty_file_has_no_documents(write):
    for name in ("a.csv", "a.jsonl"):
        assert plain(write(name, "")) == []
    assert plain(write("a.txt", "")) == [""]

from records import Records


def test_a_second_run_finds_what_the_first_one_measured(tmp_path):
    Records(tmp_path / "out.jsonl").add(name="gpt2lab", round=0, tokens_s=3.5)
    again = Records(tmp_path / "out.jsonl")
    assert again.of(name="gpt2lab", round=0) == [{"name": "gpt2lab", "round": 0, "tokens_s": 3.5}]
    assert again.of(name="gpt2lab", round=1) == []


def test_a_line_that_a_kill_cut_is_measured_again(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"round": 0}\n{"round": 1, "tok')
    Records(tmp_path / "out.jsonl").add(round=1)
    assert Records(tmp_path / "out.jsonl").of() == [{"round": 0}, {"round": 1}]


def test_records_from_before_a_field_count_as_empty(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"round": 0}\n')
    assert Records(tmp_path / "out.jsonl").of(isa="") == [{"round": 0}]

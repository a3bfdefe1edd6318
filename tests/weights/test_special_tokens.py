"""Special tokens, the ends of texts and other tokenizers, read from folders that transformers and tokenizers wrote."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_cases import registry
from checkpoint_cases import tokenizers_of_folders as cases

import needs
from gpt2lab import load
from gpt2lab.errors import CheckpointError, TokenizerError, UsageError
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights import convert, open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of

pytestmark = needs.mark("transformers", "torch", "tokenizers")

CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Return a folder of a model that was fine-tuned to chat: added tokens, another EOS, a template."""
    transformers = needs.package("transformers")
    folder = tmp_path_factory.mktemp("chat")
    backend = cases.byte_level()
    backend.add_special_tokens(["<|user|>", "<|end|>"])
    backend.add_tokens(["covid19"])
    written, tokenizer = cases.with_tokenizer(folder, backend, eos_token="<|end|>", bos_token="<|endoftext|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(written.path)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<|endoftext|>")]
    transformers.GenerationConfig(eos_token_id=ends, bos_token_id=ends[1]).save_pretrained(written.path)
    return written.path


@pytest.fixture(scope="module")
def theirs(chat):
    return needs.package("transformers").AutoTokenizer.from_pretrained(chat)


@pytest.fixture
def changed(chat, tmp_path):
    """Copy the folder, and change or delete the entries of its files."""

    def change(**files):
        folder = tmp_path / "changed"
        shutil.copytree(chat, folder)
        for name, entries in files.items():
            path = folder / f"{name}.json"
            content = {**json.loads(path.read_text(encoding="utf-8")), **entries}
            path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}), encoding="utf-8")
        return folder

    return change


def end_of(folder):
    return open_checkpoint(folder).special.eos


# ---- what the files state -------------------------------------------------------------------------------------------


def test_added_tokens_and_their_flags_are_read(chat, theirs):
    added = open_checkpoint(chat).special.added
    expected = {
        (token.content, id, token.special, token.normalized) for id, token in theirs.added_tokens_decoder.items()
    }
    assert {(token.content, token.id, token.special, token.normalized) for token in added} == expected


def test_the_ids_that_end_a_text_are_those_of_the_generation_config(chat, theirs):
    assert end_of(chat) == (theirs.eos_token_id, theirs.bos_token_id)


def test_without_a_generation_config_the_config_counts(changed):
    folder = changed(config={"eos_token_id": 7})
    (folder / "generation_config.json").unlink()
    assert end_of(folder) == (7,)


def test_an_id_that_the_model_does_not_have_ends_nothing(changed, theirs):
    assert end_of(changed(generation_config={"eos_token_id": 50256})) == (theirs.eos_token_id,)  # the tokenizer's


@pytest.mark.parametrize("id", ["50256", 1.5, True, [3, None], -2])
def test_an_end_that_is_no_id_is_refused_by_name(changed, id):
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id is .*, not a token id"):
        open_checkpoint(changed(generation_config={"eos_token_id": id}))


def test_older_folders_name_added_tokens_in_files_of_their_own(chat, tmp_path):
    transformers = needs.package("transformers")
    folder = tmp_path / "old"
    shutil.copytree(chat, folder)
    content = json.loads((chat / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (folder / "tokenizer.json").unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), encoding="utf-8")
    merges = [" ".join(merge) for merge in content["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    roles = {"eos_token": "<|end|>", "extra_special_tokens": ["<|user|>"]}
    (folder / "special_tokens_map.json").write_text(json.dumps(roles), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}), encoding="utf-8")
    tokenizer = load(folder).tokenizer
    judge = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("hi <|user|>covid19<|end|>", "covid191 <|endoftext|>"):
        assert tokenizer.encode(text, special=True) == judge(text).input_ids
        assert tokenizer.encode(text) == judge(text, split_special_tokens=True).input_ids


STRANGE = (None, True, 0, -1, 2.5, "x", [], [1], {}, {"a": 1}, [{"content": 5}], {"0": "x"}, [None], "\ud800")


def _entries(path):
    """Return the keys of a file of JSON, those of its objects with a dot between."""
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = [f"{key}.{name}" for key, value in content.items() if isinstance(value, dict) for name in list(value)[:6]]
    return [*content, *inner]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config", "generation_config"])
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(chat, tmp_path, name):
    folder = tmp_path / "strange"
    shutil.copytree(chat, folder)
    path = folder / f"{name}.json"
    extra = [
        "added_tokens_decoder",
        "extra_special_tokens",
        "additional_special_tokens",
        "add_bos_token",
        "chat_template",
    ]
    for key in [*_entries(path), *(extra if name == "tokenizer_config" else [])]:
        for value in STRANGE:
            content = json.loads((chat / path.name).read_text(encoding="utf-8"))
            place = content
            *outer, last = key.split(".", 1)
            for part in outer:
                place = place[part]
            place[last] = value
            path.write_text(json.dumps(content), encoding="utf-8")
            try:
                tokenizer_of(open_checkpoint(folder))
            except (CheckpointError, TokenizerError) as error:
                assert "\n" not in str(error)


# ---- text -----------------------------------------------------------------------------------------------------------

fragments = st.sampled_from(["<|user|>", "<|end|>", "<|endoftext|>", "covid19", "<|", "|>", " ", "hello", "é", "\n"])
texts = st.lists(fragments | st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=4), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=texts)
def test_ids_are_those_of_transformers_with_special_tokens_and_without(chat, theirs, parts):
    text = "".join(parts)
    tokenizer = _tokenizer(chat)
    assert tokenizer.encode(text, special=True) == theirs(text).input_ids
    assert tokenizer.encode(text) == theirs(text, split_special_tokens=True).input_ids
    assert tokenizer.decode(tokenizer.encode(text, special=True)) == text


_OPENED: dict[Path, Tokenizer] = {}


def _tokenizer(folder):
    if folder not in _OPENED:
        _OPENED[folder] = tokenizer_of(open_checkpoint(folder))
    return _OPENED[folder]


OTHERS = [cases.normalizer, cases.without_regex, cases.split_digits, cases.unigram, cases.wordpiece]


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Return the tokenizers of other kinds, each with the package's own."""
    tokenizers = needs.package("tokenizers")
    found = []
    for build in OTHERS:
        path = build(tmp_path_factory.mktemp(build.__name__)).path
        judge = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        judge.encode_special_tokens = True
        found.append((tokenizer_of(open_checkpoint(path)), judge))
    return found


@settings(max_examples=60, deadline=None)
@given(parts=texts)
def test_other_tokenizers_give_the_ids_and_texts_of_the_package_also_in_a_stream(others, parts):
    text = "".join(parts)
    for tokenizer, judge in others:
        ids = judge.encode(text).ids
        assert tokenizer.encode(text) == ids
        decoder = tokenizer.incremental_decoder()
        streamed = "".join([*map(decoder.feed, ids), decoder.flush()])
        assert streamed == tokenizer.decode(ids) == judge.decode(ids, skip_special_tokens=False)


def test_a_stream_of_another_tokenizer_continues_its_prompt(others):
    tokenizer, _ = others[OTHERS.index(cases.unigram)]
    prompt, following = tokenizer.encode("hello"), tokenizer.encode("world")
    decoder = tokenizer.incremental_decoder(after=prompt)
    assert "".join([*map(decoder.feed, following), decoder.flush()]) == " world"


def test_other_tokenizers_can_be_sent_to_another_process(others):
    import pickle

    for tokenizer, _ in others:
        assert pickle.loads(pickle.dumps(tokenizer)).encode("hello world") == tokenizer.encode("hello world")


def test_without_the_package_prompts_are_ids_and_a_line_says_what_to_install(tmp_path, monkeypatch, caplog):
    folder = cases.normalizer(tmp_path).path
    monkeypatch.delitem(sys.modules, "gpt2lab.package_tokenizer", raising=False)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with caplog.at_level(logging.WARNING, "gpt2lab"):
        model = load(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"gpt2lab: {folder / 'tokenizer.json'}: normalizer is {{'normalizers': [{{'type': 'NFKC'}}, {{'type': "
        "'Lowercase'}], 'type': 'Sequence'}, which needs pip install 'gpt2lab[tokenizers]': prompts and texts are "
        "token ids"
    ]
    assert len(model.generate([1, 2], length=3, seed=1).tokens) == 3
    with pytest.raises(UsageError, match="no tokenizer"):
        model.generate("a", length=1)


# ---- what is not guessed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spiece.model", "x"),
        ("vocab.txt", "[UNK]\na\n"),
        ("vocab.json", '{"a": 0}'),
        ("merges.txt", "#version: 0.2\n"),
        ("tokenizer_config.json", '{"tokenizer_class": "T5Tokenizer"}'),
        ("special_tokens_map.json", '{"eos_token": "</s>"}'),
    ],
)
def test_a_folder_with_parts_of_a_tokenizer_does_not_get_gpt2s(tmp_path, name, content):
    folder = _of_gpt2s_size(tmp_path)
    assert tokenizer_of(open_checkpoint(folder)) is Tokenizer.gpt2()
    (folder / name).write_text(content, encoding="utf-8")
    checkpoint = open_checkpoint(folder)
    assert tokenizer_of(checkpoint) is None
    assert name in checkpoint.other_tokenizer.why


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id"])
def test_a_config_with_other_ends_than_gpt2s_is_not_given_gpt2s_tokenizer(tmp_path, key):
    checkpoint = open_checkpoint(_of_gpt2s_size(tmp_path, **{key: 2}))
    assert checkpoint.other_tokenizer.why.endswith(
        f"{key} is 2, so the vocabulary is not GPT-2's, and no file holds it"
    )


def _of_gpt2s_size(tmp_path, **config):
    ends = {"bos_token_id": 50256, "eos_token_id": 50256, **config}
    folder = tmp_path / "hf"
    registry.tiny(vocab_size=50257, n_embd=4, n_layer=1, **ends).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("change", [{"type": "Custom"}, {"type": "TemplateProcessing", "single": []}])
def test_a_post_processor_that_is_not_understood_is_named(changed, change):
    checkpoint = open_checkpoint(changed(tokenizer={"post_processor": change}))
    assert checkpoint.other_tokenizer.json is None
    assert "tokenizer.json: post_processor" in checkpoint.other_tokenizer.why


def test_a_text_that_needs_an_id_beyond_the_rows_is_refused(tmp_path):
    model = load(cases.more_tokens_than_rows(tmp_path).path)
    assert model.tokenizer.encode("[PAD]") == model.tokenizer.encode("[PAD]", special=False)
    described = registry.run("info", model.checkpoint.path).stdout
    assert "tokens (1 with ids beyond the model's, which no text may use)" in described
    with pytest.raises(TokenizerError, match=r"the text holds '\[PAD\]', whose id is \d+, but the model has only"):
        model.generate("a[PAD]", length=1, special=True)


def test_ids_around_a_text_are_part_of_a_prompt_unless_they_are_not_wanted(tmp_path):
    model = load(cases.post_processor(tmp_path).path)
    begin = model.tokenizer.special.before
    inner = model.tokenizer.encode("hello", add_special_tokens=False)
    assert model.tokenizer.encode("hello") == [*begin, *inner]
    assert len(model.logits("hello")) == len(inner) + 1
    assert model.generate("hello", length=3, seed=1).text == model.generate([*begin, *inner], length=3, seed=1).text
    bare = model.generate("hello", length=3, seed=1, add_special_tokens=False)
    assert bare.text == model.generate(inner, length=3, seed=1).text
    assert model.score("hello").tokens == inner


# ---- generation -----------------------------------------------------------------------------------------------------


def ended(model, *, likely, **options):
    """Return a completion of a model that strongly prefers one id after the first few."""
    return model.generate([5, 6], length=6, seed=3, logit_bias={likely: 1000.0}, **options)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_each_id_that_ends_a_text_ends_a_sample_and_no_other(chat, device):
    model = load(chat, device=device)
    first, second = model.eos
    for id in (first, second):
        completion = ended(model, likely=id)
        assert (completion.tokens, completion.text, completion.finish_reason) == ([], "", "stop")
    assert ended(model, likely=7).finish_reason == "length"
    assert ended(model, likely=first, ignore_eos=True).tokens == [first] * 6


def test_where_another_id_ends_a_text_end_of_text_does_not(changed):
    folder = changed(generation_config={"eos_token_id": 7})
    model = load(folder)
    assert model.eos == (7,)
    assert ended(model, likely=model.tokenizer.encode("<|endoftext|>", special=True)[0]).finish_reason == "length"


def test_custom_stages_end_at_the_same_ids(chat):
    model = load(chat)

    def prefer(logits, tokens):
        logits[model.eos[1]] = 1e6
        return logits

    assert model.generate([5], length=4, seed=1, stages=[prefer]).finish_reason == "stop"


def test_a_model_without_a_tokenizer_ends_texts_too(tmp_path):
    folder = tmp_path / "hf"
    registry.tiny(eos_token_id=[3, 4]).save_pretrained(folder)
    model = load(folder)
    assert model.tokenizer is None
    assert ended(model, likely=4).finish_reason == "stop"


def test_stop_token_ids_end_a_sample_even_if_the_models_own_do_not(chat):
    model = load(chat)
    assert ended(model, likely=9, stop_token_ids=[8, 9]).finish_reason == "stop"
    assert ended(model, likely=9, stop_token_ids=[9], ignore_eos=True).finish_reason == "stop"


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("speculation", ["auto", "off"])
def test_nothing_ends_a_sample_before_min_tokens(chat, device, speculation):
    model = load(chat, device=device)
    completion = ended(model, likely=model.eos[0], min_tokens=4, speculation=speculation)
    assert (len(completion.tokens), completion.finish_reason) == (4, "stop")
    assert not set(completion.tokens) & set(model.eos)


def test_a_stop_string_before_min_tokens_is_text(chat):
    model = load(chat)
    (letter,) = model.tokenizer.encode("x")
    completion = ended(model, likely=letter, stop="x", min_tokens=3)
    assert (completion.text, completion.finish_reason) == ("xxx", "stop")


def test_more_min_tokens_than_tokens_are_refused(chat):
    with pytest.raises(UsageError, match="min_tokens must be at most the 3 tokens that are drawn, got 4"):
        load(chat).generate([5], length=3, min_tokens=4)


def test_special_tokens_can_be_left_out_of_the_text(chat):
    model = load(chat)
    (user,) = model.tokenizer.encode("<|user|>", special=True)
    assert ended(model, likely=user).text == "<|user|>" * 6
    assert ended(model, likely=user, skip_special_tokens=True).text == ""


def test_special_tokens_in_a_prompt_are_text_unless_they_are_asked_for(chat):
    model = load(chat)
    ids = model.tokenizer.encode("hi<|user|>", special=True)
    assert len(model.logits("hi<|user|>", special=True)) == len(ids) < len(model.logits("hi<|user|>"))
    assert model.score("hi<|user|>", special=True).tokens == ids
    assert model.next_token("hi<|user|>", special=True).tokens == ids
    asked = model.generate("hi<|user|>", length=4, seed=1, special=True)
    assert asked.text == model.generate(ids, length=4, seed=1).text


# ---- convert --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "gguf"])
def copied(chat, tmp_path, request):
    """Convert the folder to another, directly or through a GGUF file."""
    source = chat
    if request.param == "gguf":
        convert(open_checkpoint(chat), tmp_path / "m.gguf", precision="float32")
        source = tmp_path / "m.gguf"
    convert(open_checkpoint(source), tmp_path / "copy")
    return tmp_path / "copy"


def test_transformers_loads_the_same_tokenizer_from_a_copy(copied, theirs):
    copy = needs.package("transformers").AutoTokenizer.from_pretrained(copied)
    assert {id: (t.content, t.special) for id, t in copy.added_tokens_decoder.items()} == {
        id: (t.content, t.special) for id, t in theirs.added_tokens_decoder.items()
    }
    text = "hi <|user|>covid19 x<|end|>"
    assert copy(text).input_ids == theirs(text).input_ids
    assert set(copy.all_special_ids) >= set(theirs.all_special_ids)
    assert (copy.eos_token, copy.bos_token) == (theirs.eos_token, theirs.bos_token)
    assert copy.chat_template == theirs.chat_template == CHAT


def test_a_copy_ends_texts_where_the_original_does(copied, chat):
    transformers = needs.package("transformers")
    ends = transformers.GenerationConfig.from_pretrained(chat).eos_token_id
    assert transformers.GenerationConfig.from_pretrained(copied).eos_token_id == ends
    assert transformers.AutoConfig.from_pretrained(copied).eos_token_id == ends
    assert end_of(copied) == tuple(ends)


def test_files_of_an_older_tokenizer_do_not_stay_beside_a_new_one(chat, tmp_path, make_checkpoint):
    convert(open_checkpoint(chat), tmp_path / "out")
    convert(make_checkpoint(), tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert open_checkpoint(tmp_path / "out").other_tokenizer is None


@pytest.mark.parametrize("build", OTHERS, ids=lambda build: build.__name__)
def test_another_kind_of_tokenizer_survives_gguf(tmp_path, build):
    folder = build(tmp_path).path
    convert(open_checkpoint(folder), tmp_path / "m.gguf")
    convert(open_checkpoint(tmp_path / "m.gguf"), tmp_path / "copy")
    text = "hello the quick fox 123"
    expected = needs.package("transformers").AutoTokenizer.from_pretrained(folder)(text).input_ids
    for path in (tmp_path / "m.gguf", tmp_path / "copy"):
        assert tokenizer_of(open_checkpoint(path)).encode(text) == expected
    assert needs.package("transformers").AutoTokenizer.from_pretrained(tmp_path / "copy")(text).input_ids == expected


# ---- files that contradict each other -------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{"add_bos_token": False}, {"add_bos_token": True}, {"add_eos_token": True}])
@pytest.mark.parametrize("begins", [True, False])
def test_the_post_processor_of_a_tokenizer_json_counts_before_flags(tmp_path, begins, flags):
    folder = cases.post_processor(tmp_path).path if begins else cases.changed(lambda backend: None)(tmp_path).path
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"bos_token": "<|endoftext|>"} | flags
    path.write_text(json.dumps(content), encoding="utf-8")
    expected = needs.package("transformers").AutoTokenizer.from_pretrained(folder)("hello").input_ids
    assert load(folder).tokenizer.encode("hello") == expected


def test_tokens_that_added_tokens_json_alone_names_are_read(chat, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(chat, folder)
    judge = needs.package("transformers").AutoTokenizer.from_pretrained(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"covid20": len(judge)}), encoding="utf-8")
    judge = needs.package("transformers").AutoTokenizer.from_pretrained(folder)
    text = "covid20 <|user|>covid19"
    with pytest.raises(TokenizerError, match=f"'covid20', whose id is {judge('covid20').input_ids[0]}"):
        load(folder).tokenizer.encode(text)


def test_two_tokens_with_one_id_are_named(changed):
    taken = {"5": {"content": "<|x|>", "special": True}}
    with pytest.raises(CheckpointError, match=r"the tokens '.' and '<\|x\|>' share the id 5"):
        open_checkpoint(changed(tokenizer_config={"added_tokens_decoder": taken}))

"""Chat templates, of which a model may have several, by name; transformers judges what a copy holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_cases import tokenizers_of_folders as cases

import needs
from gpt2lab.errors import CheckpointError
from gpt2lab.weights import convert, open_checkpoint

pytestmark = needs.mark("transformers", "torch", "tokenizers")

NAMED = {"default": "{{ messages }}", "tool_use": "{{ tools }}", "rag": "{{ documents }}"}


@pytest.fixture
def folder(tmp_path):
    """Return a model whose tokenizer transformers has saved with several templates."""
    written, tokenizer = cases.with_tokenizer(tmp_path, cases.byte_level(), eos_token="<|endoftext|>")
    tokenizer.chat_template = NAMED
    tokenizer.save_pretrained(written.path)
    assert (written.path / "additional_chat_templates" / "rag.jinja").is_file()
    return written.path


def in_settings(folder, template):
    """Put ``template`` into ``tokenizer_config.json``, and delete the files that count before it."""
    for path in (folder / "chat_template.jinja", *(folder / "additional_chat_templates").glob("*")):
        path.unlink()
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "chat_template": template}), encoding="utf-8")


def theirs(folder):
    return needs.package("transformers").AutoTokenizer.from_pretrained(folder).chat_template


def listed(templates):
    return [{"name": name, "template": text} for name, text in templates.items()]


@pytest.mark.parametrize("through", ["folder", "model.gguf"])
def test_templates_with_names_are_kept(folder, tmp_path, through):
    convert(open_checkpoint(folder), tmp_path / through)
    convert(open_checkpoint(tmp_path / through), tmp_path / "copy")
    assert theirs(tmp_path / "copy") == theirs(folder) == NAMED


def test_templates_with_names_are_kept_without_one_for_all_else(folder, tmp_path):
    named = {"rag": NAMED["rag"]}
    in_settings(folder, listed(named))
    convert(open_checkpoint(folder), tmp_path / "model.gguf")
    convert(open_checkpoint(tmp_path / "model.gguf"), tmp_path / "copy")
    assert theirs(tmp_path / "copy") == theirs(folder) == named


def test_a_gguf_names_templates_as_llama_cpps_converter_does(folder, tmp_path):
    gguf = needs.package("gguf")
    convert(open_checkpoint(folder), tmp_path / "ours.gguf")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "gpt2")
    writer.add_chat_template(listed(NAMED))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = []
    for name in ("ours", "theirs"):
        reader = gguf.GGUFReader(tmp_path / f"{name}.gguf")
        found = {key: field.contents() for key, field in reader.fields.items() if "chat_template" in key}
        found["tokenizer.chat_templates"] = sorted(found["tokenizer.chat_templates"])
        fields.append(found)
    assert fields[0] == fields[1]


def test_templates_of_an_older_model_do_not_stay(folder, tmp_path, make_checkpoint):
    convert(make_checkpoint(), folder, overwrite=True)
    assert open_checkpoint(folder).special.more_templates == ()


@pytest.mark.parametrize("template", [5, ["x"], [{"name": "default"}], {"rag": None}])
def test_a_template_that_is_no_text_is_refused_by_name(folder, template):
    in_settings(folder, template)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template is .*, not a text"):
        open_checkpoint(folder)


@pytest.mark.parametrize("build", [cases.added_tokens, cases.normalizer], ids=lambda build: build.__name__)
def test_a_template_that_is_not_utf8_is_no_traceback(tmp_path, build):
    folder = build(tmp_path).path
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"UTF-8 cannot encode tokenizer\.chat_template, as GGUF demands"):
        convert(open_checkpoint(folder), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()

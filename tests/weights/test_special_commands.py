"""``--special`` on the command line, and the API's options of special tokens, with a model fine-tuned to chat."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_cases import registry
from checkpoint_cases import tokenizers_of_folders as cases

import needs
from gpt2lab import load
from gpt2lab.data.files import Reading
from gpt2lab.data.open import open_documents

pytestmark = needs.mark("transformers", "torch", "tokenizers")

TEXT = "hello<|user|> world"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(cases.added_tokens(tmp_path_factory.mktemp("chat")).path)


@pytest.fixture
def run(model):
    def run(command, *arguments):
        result = registry.run(command, *arguments, "--model", model.checkpoint.path)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def ids(model):
    """Return the ids of the text with its special token, and without."""
    with_special, without = model.tokenizer.encode(TEXT, special=True), model.tokenizer.encode(TEXT)
    assert len(with_special) < len(without)
    return with_special, without


def test_tokens(run, ids):
    assert json.loads(run("tokens", TEXT, "--json", "--special"))["ids"] == ids[0]
    assert json.loads(run("tokens", TEXT, "--json"))["ids"] == ids[1]


def test_score(run, ids):
    assert json.loads(run("score", TEXT, "--json", "--special"))["tokens"] == ids[0]
    assert json.loads(run("score", TEXT, "--json"))["tokens"] == ids[1]


def test_score_of_a_file(run, ids, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    assert json.loads(run("score", tmp_path / "a.txt", "--json", "--special"))["tokens"] == ids[0]


def test_generate(run, model, ids):
    options = ("--length", 4, "--seed", 1, "--ignore_eos")
    expected = model.generate(ids[0], length=4, seed=1, ignore_eos=True).text
    assert run("generate", TEXT, "--special", *options).endswith(expected + "\n")
    plain = model.generate(ids[1], length=2, seed=1, ignore_eos=True, overflow="slide").text
    slide = ("--length", 2, "--seed", 1, "--ignore_eos", "--overflow", "slide")
    assert run("generate", TEXT, *slide).endswith(plain + "\n")


def test_interactive(model, ids):
    from click.testing import CliRunner

    from gpt2lab.cli.main import cli

    options = ["--model", str(model.checkpoint.path), "--length", "4", "--seed", "1", "--ignore_eos", "--special"]
    result = CliRunner().invoke(cli, ["interactive", *options], input=TEXT + "\n")
    expected = model.generate(ids[0], length=4, seed=1, ignore_eos=True).text
    assert expected in result.stdout


@pytest.mark.parametrize("special", [True, False])
def test_encode(run, model, ids, tmp_path, special):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    run("encode", tmp_path / "a.txt", tmp_path / "a.tokens", *(["--special"] if special else []))
    found = open_documents([str(tmp_path / "a.tokens")], model.tokenizer, reading=Reading(), say=print)
    assert list(found.tokens[: len(found.tokens)]) == ids[0 if special else 1]


@pytest.mark.parametrize("special", [True, False])
def test_train_reads_special_tokens_if_asked_and_keeps_them(model, tmp_path, special):
    from gpt2lab.training.finetuning import finetune

    run = finetune(
        model.checkpoint.path,
        [TEXT] * 4,
        steps=1,
        validation=None,
        special=special,
        checkpoint_dir=str(tmp_path),
        sample_every=0,
        say=lambda line: None,
    )
    with run:
        run.finish()
    kept = load(run.folder)
    assert kept.tokenizer.encode(TEXT, special=True) == model.tokenizer.encode(TEXT, special=True)
    assert kept.eos == model.eos
    assert kept.checkpoint.special.added == model.checkpoint.special.added


# ---- the API --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    needs.check("fastapi", "httpx")
    from fastapi.testclient import TestClient

    from gpt2lab.serving.app import make_app
    from gpt2lab.serving.service import Service
    from gpt2lab.serving.settings import Settings

    served = load(cases.post_processor(tmp_path_factory.mktemp("served")).path)
    service = Service([("m", served)], Settings())
    with TestClient(make_app(service), base_url="http://localhost") as client:
        yield client, served


def complete(client, **body):
    answer = client.post("/v1/completions", json={"max_tokens": 4, "seed": 1, "return_token_ids": True, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_the_ids_around_a_prompt_can_be_left_out(client):
    http, model = client
    inner = model.tokenizer.encode("hello", add_special_tokens=False)
    assert complete(http, prompt="hello")["prompt_token_ids"] == [*model.tokenizer.special.before, *inner]
    assert complete(http, prompt="hello", add_special_tokens=False)["prompt_token_ids"] == inner
    tokenized = http.post("/tokenize", json={"prompt": "hello", "add_special_tokens": False}).json()
    assert tokenized["tokens"] == inner


def test_stop_token_ids_and_min_tokens(client):
    http, _ = client
    bias = {"logit_bias": {"9": 100}}
    choice = complete(http, prompt=[5], stop_token_ids=[9], **bias)
    assert (choice["text"], choice["finish_reason"], choice["token_ids"]) == ("", "stop", [9])
    choice = complete(http, prompt=[5], stop_token_ids=[9], min_tokens=2, **bias)
    assert len(choice["token_ids"]) == 3 and choice["token_ids"][-1] == 9


def test_each_id_that_ends_a_text_ends_a_choice(client):
    http, model = client
    (end,) = model.eos
    bias = {"logit_bias": {str(end): 100}}
    choice = complete(http, prompt=[5], **bias)
    assert (choice["text"], choice["finish_reason"], choice["token_ids"]) == ("", "stop", [end])
    assert complete(http, prompt=[5], ignore_eos=True, **bias)["finish_reason"] == "length"


def test_special_tokens_can_be_left_out_of_the_text(client):
    http, model = client
    (end,) = model.tokenizer.encode("<|end|>", special=True, add_special_tokens=False)
    bias = {"logit_bias": {str(end): 100}}
    assert complete(http, prompt=[5], **bias)["text"] == "<|end|>" * 4
    assert complete(http, prompt=[5], skip_special_tokens=True, **bias)["text"] == ""


@pytest.mark.parametrize(
    ("field", "value"), [("stop_token_ids", [10**6]), ("stop_token_ids", ["a"]), ("min_tokens", 9), ("min_tokens", -1)]
)
def test_values_that_do_not_fit_are_refused_by_name(client, field, value):
    answer = client[0].post("/v1/completions", json={"prompt": [5], "max_tokens": 4, field: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)

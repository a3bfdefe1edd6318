"""``gpt2lab verify``, on a random model whose answers transformers computed, and with ten errors planted in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import DATASET, PARAGRAPHS, SOURCE, STATE, Oracle, random_checkpoint

from gpt2lab.cli.main import cli
from gpt2lab.config import RELEASED_SIZES
from gpt2lab.verifying import verify
from gpt2lab.weights import convert
from gpt2lab.weights.checkpoint import TokenizerFiles

NUMBERS = ("greedy", "logits", "surprisals")
"""The kinds that must catch every error by themselves."""


@pytest.fixture
def answers_file(tmp_path, answers):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers))
    return path


@pytest.fixture
def gpt2lab():
    return lambda *arguments: CliRunner().invoke(cli, [str(each) for each in arguments])


def results(found):
    return {answer.name: outcome.passed for answer, outcome in found.outcomes}


def caught(found):
    """Return the kinds of which at least one check failed."""
    return {answer.kind for answer, outcome in found.outcomes if outcome.passed is False}


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_every_answer_agrees_with_transformers(hub, answers_file, state_file, device):
    hub.files[f"/datasets/{DATASET}/resolve/main/{STATE}"] = state_file
    found = verify("124M", answers=answers_file, device=device)
    assert [(answer.name, outcome) for answer, outcome in found.outcomes if not outcome.passed] == []
    assert {answer.kind for answer, _ in found.outcomes} >= {"digest", "tokens", "adamw", "debug_state", *NUMBERS}


def test_the_command_downloads_prints_a_table_and_writes_json(hub, answers_file, gpt2lab, tmp_path):
    done = gpt2lab("verify", "124M", "--answers", answers_file)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["check", "expected", "got", "within", "result"]
    assert lines[1].startswith("digest 0") and lines[1].endswith("pass")
    assert lines[-1].endswith("0 failed, 1 skipped; written to verify-124M.json")  # the hub lacks llm.c's file
    record = json.loads((tmp_path / "verify-124M.json").read_text())
    assert (record["failed"], record["skipped"], record["passed"]) == (0, 1, len(record["checks"]) - 1)
    assert all(check["source"] for check in record["checks"])
    nats = next(check for check in record["checks"] if check["kind"] == "surprisals")
    assert nats["got"] == pytest.approx(nats["expected"], abs=nats["tolerance"])


def test_a_mismatch_exits_with_1_and_names_the_source(hub, answers, tmp_path, gpt2lab):
    wrong = {"kind": "loss", "name": "a loss", "source": "an article", "text": "Hello", "nats": 1.0, "tolerance": 0.1}
    (tmp_path / "wrong.json").write_text(json.dumps({"models": {"124M": [wrong]}}))
    done = gpt2lab("verify", "124M", "--answers", tmp_path / "wrong.json", "--out", tmp_path / "out.json")
    assert done.exit_code == 1
    assert "FAIL\n    source: an article\n" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["checks"][0]["result"] == "fail"


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_logits_that_are_no_numbers_are_mismatches_and_still_make_json(hub, answers_file, changed):
    found = verify(str(changed({"ln_f.bias": np.full(48, 1e38, np.float32)})), answers=answers_file, device="reference")
    assert caught(found) >= {"logits", "surprisals"}
    assert "NaN" not in json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tales"], "so there are no published answers for it; give your own with --answers"),
        (["no/such/model"], "no model at no/such/model"),
        (["tales", "--answers", "missing.json"], "cannot read missing.json"),
        (["tales", "--device", "gpu"], "gpu"),
    ],
)
def test_a_mistake_of_the_user_exits_with_2(gpt2lab, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = gpt2lab("verify", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_another_digest_fails_in_a_download_and_is_skipped_in_a_folder_of_the_users(hub, answers, tmp_path, folder):
    other = {**answers["models"]["124M"][0], "sha256": "0" * 64}
    (tmp_path / "answers.json").write_text(json.dumps({"models": {"124M": [other]}}))
    assert results(verify("124M", answers=tmp_path / "answers.json"))["digest 0"] is False
    assert results(verify(str(folder), answers=tmp_path / "answers.json"))["digest 0"] is None


def test_the_repository_of_a_size_is_held_to_the_published_digest_and_a_folder_of_its_name_is_not(
    hub, answers, tmp_path, folder
):
    other = {**answers["models"]["124M"][0], "sha256": "0" * 64}
    (tmp_path / "answers.json").write_text(json.dumps({"models": {"124M": [other]}}))
    assert results(verify("openai-community/gpt2", answers=tmp_path / "answers.json"))["digest 0"] is False
    shutil.copytree(folder, tmp_path / "gpt2")
    assert results(verify("gpt2", answers=tmp_path / "answers.json"))["digest 0"] is None


def test_without_pytorch_the_updates_are_skipped_with_a_reason(hub, answers_file, monkeypatch):
    monkeypatch.setattr("gpt2lab.verifying.llm_c.find_spec", lambda name: None)
    found = verify("124M", answers=answers_file)
    reasons = {answer.kind: outcome.got for answer, outcome in found.outcomes if outcome.passed is None}
    assert reasons["adamw"] == "needs PyTorch: pip install 'gpt2lab[train]'"


@pytest.fixture
def numbers_file(tmp_path, answers):
    """Provide only the answers that must catch every error by themselves, and the ids of a text."""
    path = tmp_path / "numbers.json"
    kept = [each for each in answers["models"]["124M"] if each["kind"] in ("tokens", *NUMBERS)]
    path.write_text(json.dumps({"models": {"124M": kept}}))
    return path


# ---- planted errors -------------------------------------------------------------------------------------------------


def _swapped_q_k(tensors):
    def swap(tensor):
        q, k, v = np.split(tensor, 3, axis=-1)
        return np.concatenate([k, q, v], axis=-1)

    return {name: swap(tensors[name]) for name in ("h.1.attn.c_attn.weight", "h.1.attn.c_attn.bias")}


def _swapped_layers(tensors):
    pairs = ((name, name.replace("h.1.", "h.2.", 1)) for name in tensors if name.startswith("h.1."))
    return {new: tensors[old] for one, other in pairs for new, old in ((one, other), (other, one))}


PLANTED = {
    "position off by one": lambda t: {"wpe.weight": np.roll(t["wpe.weight"], -1, axis=0)},
    "a lost bias": lambda t: {"h.1.mlp.c_proj.bias": np.zeros_like(t["h.1.mlp.c_proj.bias"])},
    "swapped q and k": _swapped_q_k,
    "a transposed matrix": lambda t: {"h.1.attn.c_proj.weight": t["h.1.attn.c_proj.weight"].T.copy()},
    "one swapped layer": _swapped_layers,
    "float16 rounding": lambda t: {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in t.items()},
}
"""Error → the tensors that it changes."""


@pytest.mark.parametrize("error", PLANTED)
def test_an_error_in_the_weights_is_caught(hub, numbers_file, changed, checkpoint, error):
    found = verify(str(changed(PLANTED[error](checkpoint.tensors))), answers=numbers_file)
    assert caught(found) & {*NUMBERS}, error


SWITCHED = {
    "exact GELU": {"activation": "gelu"},
    "epsilon 1e-6": {"layer_norm_epsilon": 1e-6},
    "untied head": {"tie_word_embeddings": False},
}
"""Error → the switches of the model that it sets, as if its files said so."""


def _switched(checkpoint, path, error):
    """Write a model that differs by one switch; an untied head is the embedding, one row further on."""
    config = replace(checkpoint.config, **SWITCHED[error])
    head = (
        {} if config.tie_word_embeddings else {"lm_head.weight": np.roll(checkpoint.tensors["wte.weight"], 1, axis=0)}
    )
    convert(replace(checkpoint, config=config, tensors={**checkpoint.tensors, **head}), path)
    return str(path)


@pytest.mark.parametrize("error", SWITCHED)
def test_an_error_in_the_arithmetic_is_caught(hub, numbers_file, checkpoint, tmp_path, error):
    path = _switched(checkpoint, tmp_path / "switched", error)
    assert caught(verify(path, answers=numbers_file, device="reference")) & {*NUMBERS}, error


def test_wrong_merges_are_caught(hub, numbers_file, changed, checkpoint):
    encoder, merges = checkpoint.tokenizer_files
    swapped = [each for one, other in pairwise(merges[:400:2]) for each in (other, one)][:400]
    swapped = list(dict.fromkeys([*swapped, *merges]))
    found = verify(str(changed({}, TokenizerFiles(encoder, swapped))), answers=numbers_file)
    assert caught(found) >= {"tokens"} and caught(found) & {*NUMBERS}


# ---- the shape of a released model ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_weights_of_124ms_shape_agree_and_the_published_tolerance_catches_small_errors(hub, tmp_path, gpt2lab):
    checkpoint = random_checkpoint(RELEASED_SIZES["124M"])
    convert(checkpoint, tmp_path / "large")
    hub.add_folder("openai-community/gpt2", tmp_path / "large")
    oracle = Oracle(tmp_path / "large", tolerance=5e-4)
    checks = [*oracle.digests(), *oracle.greedy(), *oracle.numbers(), *oracle.batches()]
    named = [{"name": f"{each['kind']} {number}", "source": SOURCE, **each} for number, each in enumerate(checks)]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"texts": {"play": PARAGRAPHS}, "models": {"124M": named}}))
    done = gpt2lab("verify", "124M", "--answers", path)
    assert done.exit_code == 0, done.output
    for error in ("exact GELU", "epsilon 1e-6"):
        switched = _switched(checkpoint, tmp_path / error, error)
        assert caught(verify(switched, answers=path, device="reference")) & {*NUMBERS}, error

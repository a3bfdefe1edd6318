"""lm-evaluation-harness as a client: its figures over HTTP are those of ``gpt2lab eval``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest
from safetensors.numpy import load_file, save_file

import needs

from .test_faults import begin

needs.package("lm_eval")
needs.check("transformers", "POSIX")
pytestmark = pytest.mark.nightly

PASSAGES = (
    "Once upon a time there was a king who had three sons. The old king said to his three sons",
    "A wolf met a little girl in the wood. I am going to my grandmother, said the little girl",
    "The fox went into the wood, and there he met the wolf. Good day, said the wolf to the fox",
    "And so they lived happily together until their death.",
    "The stones themselves took pity on her. And so they lived happily together until their death.",
)
TASK = """
task: passages
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def model(tmp_path):
    """``tales`` in a folder from which the harness takes its tokenizer, changed to end texts after a sentence."""
    import gpt2lab

    folder = tmp_path / "ending"
    run("gpt2lab", "convert", "tales", folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("wte.weight"))
    newline = gpt2lab.load("tales").tokenizer.encode("\n")[0]
    weights[name][50256] = 1.05 * weights[name][newline]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def run(*command: object, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures_of_eval(model, file) -> dict[str, float]:
    report = json.loads(run("gpt2lab", "eval", "lambada", "--model_name", model, "--data", file, "--json"))
    return {each["metric"]: each["value"] for each in report["figures"] if each["protocol"] == "last word"}


def figures_of_harness(url, model, folder) -> dict[str, float]:
    arguments = f"model={model.name},base_url={url}/v1/completions,tokenizer_backend=huggingface,tokenizer={model}"
    run(
        "lm_eval", "run", "--model", "local-completions", "--model_args", arguments,
        "--include_path", folder, "--tasks", "passages", "--output_path", folder / "out",
        HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(folder / "hub"),
    )  # fmt: skip
    (file,) = (folder / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]["passages"]
    return {"accuracy": results["acc,none"], "perplexity": results["perplexity,none"]}


@pytest.mark.timeout(900)
def test_the_harness_measures_over_http_what_eval_measures(model, tmp_path):
    file = tmp_path / "lambada_test.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    (tmp_path / "passages.yaml").write_text(TASK % file)
    process, url = begin("--model_name", str(model), "--precision", "float32")
    try:
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": list(PASSAGES), "max_tokens": 1, "temperature": 0})
        ends = [choice["finish_reason"] for choice in answer.json()["choices"]]
        assert "stop" in ends, "no passage is followed by an end of text, which had no log-probability once"
        found = figures_of_harness(url, model, tmp_path)
    finally:
        process.kill()
        process.wait()
    assert 0 < found["accuracy"] < 1
    assert found == pytest.approx(figures_of_eval(model, file), rel=1e-4)

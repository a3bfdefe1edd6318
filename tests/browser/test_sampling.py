"""The page's rules of sampling against gpt2lab.sampling, on many random cases."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from gpt2lab.errors import SamplingError
from gpt2lab.exploring.reading import entropy
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import draw, philox4x32, stages, uniform

N_VOCAB = 50_257
N_CASES = 200

# All parts of a case that can be compared, with arrays as bytes.
RUN = """(m, cases) => cases.map(({logits, params, history, u}) => {
  const bytes = (array) => {
    const all = new Uint8Array(array.buffer);
    let text = "";
    for (let i = 0; i < all.length; i += 8192) text += String.fromCharCode(...all.subarray(i, i + 8192));
    return btoa(text);
  };
  const raw = Uint8Array.from(atob(logits), (c) => c.charCodeAt(0));
  const found = m.stages(new Float32Array(raw.buffer), params, history);
  const last = found.at(-1).probabilities;
  return {
    stages: found.map(({name, logits, probabilities}) => [name, bytes(logits), bytes(probabilities)]),
    measured: m.measured(found),
    drawn: m.draw(last, u),
    stretch: m.stretch(last, m.draw(last, u)),
    cut: [0, 1, 2].map((id) => m.cutBy(found, id)),
    likeliest: m.likeliest(last, 5),
  };
})"""


def random_case(random: np.random.Generator, n_vocab: int) -> dict[str, Any]:
    """Return random logits, like a model's, with many ties, or with tokens ruled out, and any parameters."""
    logits = random.normal(0, random.choice([0.1, 3, 30]), n_vocab)
    if random.random() < 0.4:
        logits = np.round(logits)
    logits[random.random(n_vocab) < random.choice([0, 0, 0.3])] = -math.inf
    logits[random.integers(n_vocab)] = 1.5
    params: dict[str, Any] = {
        "temperature": random.choice([0, 1e-30, 0.5, 1, 1.1, 1.2, 1.3, 2, 100, random.uniform(0, 3)]),
        "top_k": int(random.choice([0, 0, 1, 40, n_vocab, random.integers(1, 2 * n_vocab)])),
        "top_p": random.choice([0, 0.5, 0.9, 1, 1, random.random()]),
        "min_p": random.choice([0, 0, 0.05, 1, random.random()]),
        "repetition_penalty": random.choice([1, 1, 1.2, random.uniform(0.5, 2)]),
        "presence_penalty": random.choice([0, 0, 1, random.uniform(-2, 2)]),
        "frequency_penalty": random.choice([0, 0, 0.5, random.uniform(-2, 2)]),
    }
    params = {name: value if name == "top_k" else float(value) for name, value in params.items()}
    if random.random() < 0.2:
        params["logit_bias"] = {str(random.integers(n_vocab)): float(random.normal()) for _ in range(3)}
    history = random.integers(0, n_vocab, random.choice([0, 1, 30, 500])).tolist()
    return {"logits": logits.astype(np.float32), "params": params, "history": history, "u": random.random()}


def compare(case: dict[str, Any], found: dict[str, Any]) -> None:
    bias = {int(id): added for id, added in case["params"].get("logit_bias", {}).items()}
    expected = stages(case["logits"], SamplingParams(**{**case["params"], "logit_bias": bias}), case["history"])
    assert [name for name, *_ in found["stages"]] == [stage.name for stage in expected]
    before = expected[0].probabilities
    for stage, (_, logits, probabilities), measure in zip(expected, found["stages"], found["measured"], strict=True):
        actual = np.frombuffer(base64.b64decode(probabilities))
        np.testing.assert_array_equal(actual > 0, stage.probabilities > 0)
        np.testing.assert_allclose(actual, stage.probabilities, rtol=1e-12, atol=1e-300)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(logits)), stage.logits)
        cut = (before > 0) & (stage.probabilities == 0)
        assert (measure["kept"], measure["cut"]) == (np.count_nonzero(stage.probabilities), np.count_nonzero(cut))
        assert measure["cutProbability"] == pytest.approx(before[cut].sum(), abs=1e-12)
        assert measure["entropy"] == pytest.approx(float(entropy(stage.probabilities)), abs=1e-9)
        before = stage.probabilities
    _compare_draw(case, found, before)
    for id, name in zip((0, 1, 2), found["cut"], strict=True):
        assert name == next((stage.name for stage in expected if stage.probabilities[id] == 0), None)


def _compare_draw(case: dict[str, Any], found: dict[str, Any], probabilities: np.ndarray) -> None:
    id, cumulative = found["drawn"], np.cumsum(probabilities)
    low, high = (cumulative[id - 1] if id else 0.0) / cumulative[-1], cumulative[id] / cumulative[-1]
    assert probabilities[id] > 0
    assert id == draw(probabilities, case["u"]) or min(abs(case["u"] - low), abs(case["u"] - high)) < 1e-12
    assert found["stretch"] == [pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12)]
    assert found["likeliest"] == np.argsort(-probabilities, kind="stable")[:5].tolist() or _all_close(probabilities)


def _all_close(probabilities: np.ndarray) -> bool:
    """Return whether two neighbours among the six highest are so close that rounding may swap them."""
    highest = np.sort(probabilities)[::-1][:6]
    return bool(np.any(-np.diff(highest) < 1e-12))


def run(evaluate: Any, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    packed = [{**case, "logits": base64.b64encode(case["logits"].tobytes()).decode()} for case in cases]
    return evaluate("sampling.js", RUN, packed)


def test_stages_measures_and_draws_are_those_of_python(evaluate):
    random = np.random.default_rng(1)
    cases = [random_case(random, int(random.choice([1, 2, 7, 130, 1000]))) for _ in range(N_CASES)]
    for case in cases:
        case["logits"] = np.resize(case["logits"], max(3, len(case["logits"])))
    for case, found in zip(cases, run(evaluate, cases), strict=True):
        compare(case, found)


def test_so_are_those_of_the_whole_vocabulary(evaluate):
    random = np.random.default_rng(2)
    cases = [random_case(random, N_VOCAB) for _ in range(4)]
    for case, found in zip(cases, run(evaluate, cases), strict=True):
        compare(case, found)


def test_random_numbers_are_those_of_python(evaluate):
    random = np.random.default_rng(3)
    places = [[int(random.integers(2**63)), int(random.integers(2**64, dtype=np.uint64)), int(random.integers(2**32))]]
    places += [[random.integers(2**40).item(), i, random.integers(1024).item()] for i in range(50)]
    places += [[0, 0, 0], [2**63 - 1, 2**64 - 1, 2**32 - 1]]
    text = [[str(each) for each in place] for place in places]
    assert evaluate("sampling.js", "(m, a) => a.map((p) => m.uniform(...p))", text) == [uniform(*p) for p in places]
    assert evaluate("sampling.js", "(m) => m.uniform(7, 0, 12)") == uniform(7, 0, 12)
    words = evaluate("sampling.js", "(m) => m.philox4x32([1n, 2n, 3n, 4n], [5n, 6n]).map(String)")
    assert [int(word) for word in words] == list(philox4x32((1, 2, 3, 4), (5, 6)))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -1},
        {"temperature": None},
        {"top_k": 1.5},
        {"top_k": -1},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"presence_penalty": "x"},
    ],
)
def test_what_python_refuses_is_refused_in_the_same_words(evaluate, params):
    with pytest.raises(SamplingError) as refused:
        SamplingParams(**params)
    message = evaluate(
        "sampling.js", "(m, p) => { try { m.stages([1, 2], p) } catch (e) { return e.message } }", params
    )
    shown = json.loads(json.dumps(params))
    assert message.partition(", got")[0] == str(refused.value).partition(", got")[0], shown


@pytest.mark.parametrize("logits", [[1.0, math.nan], [1.0, math.inf], [-math.inf, -math.inf]])
def test_logits_without_a_distribution_are_refused(evaluate, logits):
    with pytest.raises(SamplingError) as refused:
        stages(logits, SamplingParams())
    message = evaluate("sampling.js", "(m, row) => { try { m.stages(row) } catch (e) { return e.message } }", logits)
    assert message.split(" is ")[0] == str(refused.value).split(" is ")[0]

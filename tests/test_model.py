"""The Python API on every engine: golden numbers, invariance, and the meaning of each argument."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
from gpt2lab.config import ModelConfig
from gpt2lab.engines.lazy import Engines
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import CheckpointError, ContextError, Gpt2LabError, SamplingError, UsageError
from gpt2lab.generation.run import in_order
from gpt2lab.model import LanguageModel, tokenizer_of
from gpt2lab.scoring import windows
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

GOLDEN = Path(__file__).parent / "golden"
END_OF_TEXT = 50256
PROMPT = "The cat"


@pytest.fixture(scope="module", params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tiny(device: str) -> LanguageModel:
    """Provide a model with n_vocab 50257 and n_ctx 64."""
    return gpt2lab.load(GOLDEN / "tiny", precision="float32", device=device)


@pytest.fixture(scope="module")
def odd(device: str) -> LanguageModel:
    """Provide a model with n_vocab 307, n_ctx 40 and no tokenizer."""
    return gpt2lab.load(GOLDEN / "odd", precision="float32", device=device)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest):
    yield
    for name in {"tiny", "odd"} & set(request.fixturenames):
        for engine in request.getfixturevalue(name)._engines.opened:
            assert (engine.kv_cache_bytes if hasattr(engine, "kv_cache_bytes") else engine.n_sequences) == 0


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / name / "golden.npz"))


# ---- the original's numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_greedy_tokens_are_the_originals_to_the_end_of_the_context(
    name: str, tiny: LanguageModel, odd: LanguageModel
) -> None:
    model, numbers = {"tiny": tiny, "odd": odd}[name], golden(name)
    prompt, expected = numbers["greedy_prompt"][0].tolist(), numbers["greedy_tokens"][0].tolist()
    completion = model.generate(prompt, length=len(expected) - len(prompt), temperature=0, ignore_eos=True)
    assert completion.tokens == expected[len(prompt) :]
    assert completion.finish_reason == "length"


def test_logits_are_the_originals(tiny: LanguageModel, odd: LanguageModel) -> None:
    numbers = golden("odd")
    for tokens, expected in zip(numbers["full_tokens"], numbers["full_logits"], strict=True):
        assert np.abs(odd.logits(tokens) - expected).max() <= 1e-4
    numbers = golden("tiny")
    logits = tiny.logits(numbers["full_tokens"][0].tolist())
    assert logits.dtype == np.float32
    assert np.abs(logits[-1] - numbers["full_logits_last"][0]).max() <= 1e-4


# ---- what a sample depends on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_changes_no_text(odd: LanguageModel, tiny: LanguageModel, batch_size: int) -> None:
    prompts = [[1], list(range(30)), [2, 3], [1]]
    wanted = odd.generate(prompts, n=3, length=10, seed=5)
    assert odd.generate(prompts, n=3, length=10, seed=5, batch_size=batch_size) == wanted
    wanted = tiny.generate(["A prompt", ""], n=2, length=4, seed=5)
    assert tiny.generate(["A prompt", ""], n=2, length=4, seed=5, batch_size=batch_size) == wanted


def test_a_prompt_alone_gives_what_it_gives_among_others(tiny: LanguageModel) -> None:
    among = tiny.generate(["One", PROMPT, "Another, longer one"], n=2, length=10, seed=3)
    alone = list(in_order(tiny.pieces(PROMPT, n=2, first_index=2, length=10, seed=3), 2))
    assert alone == among[2:4]


def test_the_number_of_threads_changes_no_text() -> None:
    one, two = (
        gpt2lab.load(GOLDEN / "tiny", threads=threads).generate(["A", PROMPT], n=2, length=12, seed=1, logprobs=True)
        for threads in (1, 2)
    )
    assert one == two


def test_sample_i_of_prompt_p_is_stream_p_n_plus_i(tiny: LanguageModel) -> None:
    completions = tiny.generate(["A", "B"], n=3, length=6, seed=1)
    assert [c.index for c in completions] == list(range(6))
    assert [c.prompt for c in completions] == ["A"] * 3 + ["B"] * 3
    assert len({tuple(c.tokens) for c in completions[:3]}) == 3


def test_more_samples_leave_the_first_ones_as_they_were(tiny: LanguageModel) -> None:
    assert tiny.generate(PROMPT, n=5, length=6, seed=1)[:2] == tiny.generate(PROMPT, n=2, length=6, seed=1)


def test_a_seed_drawn_by_the_system_is_told_and_gives_the_same_again(tiny: LanguageModel) -> None:
    first = tiny.generate(PROMPT, length=8)
    assert tiny.generate(PROMPT, length=8, seed=first.seed) == first
    assert tiny.generate(PROMPT, length=8).seed != first.seed


@pytest.mark.parametrize("temperature", [0, 0.5, 1, 1.1, 1.2, 1.3, 2, 100])
def test_every_temperature_gives_tokens_of_the_vocabulary(tiny: LanguageModel, temperature: float) -> None:
    completion = tiny.generate(PROMPT, length=5, temperature=temperature, seed=2, ignore_eos=True)
    assert len(completion.tokens) == 5
    assert all(0 <= id < 50257 for id in completion.tokens)


def test_temperature_0_top_k_1_and_top_p_0_are_all_greedy(tiny: LanguageModel) -> None:
    greedy = tiny.generate(PROMPT, length=8, temperature=0, seed=1)
    assert (
        greedy == tiny.generate(PROMPT, length=8, top_k=1, seed=1) == tiny.generate(PROMPT, length=8, top_p=0, seed=1)
    )


def test_filters_that_keep_everything_change_nothing(tiny: LanguageModel) -> None:
    plain = tiny.generate(PROMPT, length=8, seed=4)
    assert plain == tiny.generate(PROMPT, length=8, seed=4, top_k=10**6, top_p=1.0, min_p=0.0)


def test_penalties_count_the_prompt_and_the_completion_but_not_the_implicit_start(tiny: LanguageModel) -> None:
    banned = tiny.generate(PROMPT, length=30, temperature=0, presence_penalty=1e6)
    tokens = [*tiny.tokenizer.encode(PROMPT), *banned.tokens]
    assert len(set(tokens)) == len(tokens)
    assert tiny.generate("", length=1, presence_penalty=1e6, logit_bias={END_OF_TEXT: 1e4}).finish_reason == "stop"
    assert tiny.generate([END_OF_TEXT], length=1, presence_penalty=1e6, logit_bias={END_OF_TEXT: 1e4}).tokens


# ---- where a sample starts and ends ---------------------------------------------------------------------------------


def test_text_is_the_decoded_tokens_and_prompt_is_kept_apart(tiny: LanguageModel) -> None:
    completion = tiny.generate(PROMPT, length=20, seed=1)
    assert completion.prompt == PROMPT
    assert completion.text == tiny.tokenizer.decode(completion.tokens)


def test_an_empty_prompt_starts_from_end_of_text(tiny: LanguageModel) -> None:
    implicit, explicit = (tiny.generate(p, length=9, seed=1) for p in ("", [END_OF_TEXT]))
    assert implicit.tokens == explicit.tokens
    assert implicit.prompt == ""


def test_length_defaults_to_the_context_without_a_prompt_and_half_of_it_after_one(tiny: LanguageModel) -> None:
    assert len(tiny.generate("", seed=1, ignore_eos=True).tokens) == 64
    half = tiny.generate(PROMPT, seed=1, ignore_eos=True)
    assert (len(half.tokens), half.finish_reason) == (32, "length")


def test_the_default_length_is_cut_to_the_room_in_the_context(tiny: LanguageModel) -> None:
    completion = tiny.generate([1] * 50, seed=1, ignore_eos=True)
    assert (len(completion.tokens), completion.finish_reason) == (14, "context")
    full = tiny.generate([1] * 64)
    assert (full.tokens, full.text, full.finish_reason) == ([], "", "context")


def test_length_0_gives_an_empty_completion(tiny: LanguageModel) -> None:
    completions = tiny.generate([PROMPT, ""], n=2, length=0)
    assert [(c.text, c.tokens, c.finish_reason) for c in completions] == [("", [], "length")] * 4


@pytest.mark.parametrize(
    ("prompt", "length", "message"),
    [
        ([1] * 65, None, "the prompt has 65 tokens, more than the model's context of 64"),
        ([1] * 65, 1, "the prompt has 65 tokens, more than the model's context of 64"),
        ([1] * 60, 5, "after a prompt of 60 tokens the model's context of 64 has room for 4, not 5"),
        ([1], 64, "after a prompt of 1 token the model's context of 64 has room for 63, not 64"),
        ("", 65, "after a prompt of 0 tokens the model's context of 64 has room for 64, not 65"),
    ],
)
def test_what_does_not_fit_the_context_is_refused_before_any_work(
    tiny: LanguageModel, prompt: str | list[int], length: int | None, message: str
) -> None:
    with pytest.raises(ContextError, match=message):
        tiny.stream(prompt, length=length)


def test_a_sliding_context_goes_on_from_its_newer_half(odd: LanguageModel) -> None:
    text = [1, 2, 3]
    text += odd.generate(text, length=60, temperature=0, overflow="slide").tokens
    assert len(text) == 63
    for n, start in ((40, 0), (41, 20), (60, 20), (61, 40)):
        assert text[n] == odd.logits(text[start:n])[-1].argmax()


@pytest.mark.parametrize("n_prompt", [1, 40, 200])
def test_a_sliding_context_takes_any_prompt_and_batch(odd: LanguageModel, n_prompt: int) -> None:
    arguments = {"n": 3, "length": 80, "seed": 1, "overflow": "slide"}
    completions = odd.generate([7] * n_prompt, batch_size=1, **arguments)
    assert [len(c.tokens) for c in completions] == [80] * 3
    assert completions == odd.generate([7] * n_prompt, **arguments)


def test_an_unconditional_sample_may_slide_too(tiny: LanguageModel) -> None:
    assert len(tiny.generate("", length=70, overflow="slide", ignore_eos=True).tokens) == 70


def test_end_of_text_ends_a_sample_unless_ignored(tiny: LanguageModel) -> None:
    certain = {"logit_bias": {END_OF_TEXT: 1e4}, "length": 3}
    stopped = tiny.generate(PROMPT, **certain)
    assert (stopped.tokens, stopped.text, stopped.finish_reason) == ([], "", "stop")
    ignored = tiny.generate(PROMPT, ignore_eos=True, **certain)
    assert (ignored.tokens, ignored.text) == ([END_OF_TEXT] * 3, "<|endoftext|>" * 3)
    assert ignored.finish_reason == "length"


def test_a_stop_string_ends_the_text_before_it(tiny: LanguageModel) -> None:
    text = tiny.generate(PROMPT, length=20, seed=1).text
    stop = text[25:30]
    completion = tiny.generate(PROMPT, length=20, seed=1, stop=stop)
    assert completion.text == text[: text.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.text == "".join(tiny.stream(PROMPT, length=20, seed=1, stop=["never there", stop]))


def test_samples_that_stop_early_leave_the_others_alone(tiny: LanguageModel) -> None:
    whole = tiny.generate(PROMPT, n=6, length=20, seed=1)
    stop = whole[2].text[20:24]
    for completion, before in zip(tiny.generate(PROMPT, n=6, length=20, seed=1, stop=stop), whole, strict=True):
        assert completion.text == before.text.split(stop)[0]


# ---- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_text_in_pieces(tiny: LanguageModel) -> None:
    pieces = list(tiny.stream(PROMPT, length=20, seed=1))
    assert "".join(pieces) == tiny.generate(PROMPT, length=20, seed=1).text
    assert len(pieces) > 10


def test_a_stream_left_early_frees_what_it_held(tiny: LanguageModel) -> None:
    for _ in tiny.stream(PROMPT, length=20):
        break
    stream = tiny.stream(PROMPT, length=20)
    next(stream)
    stream.close()
    tiny.stream(PROMPT)  # never started


def test_samples_without_end_come_until_closed(tiny: LanguageModel) -> None:
    pieces = tiny.pieces("", n=None, length=3, seed=1)
    completions = list(islice(in_order(pieces), 10))
    pieces.close()
    assert completions[:4] == tiny.generate("", n=4, length=3, seed=1)
    with pytest.raises(UsageError, match="exactly one prompt, got 2"):
        tiny.pieces(["A", "B"], n=None)


# ---- the shape of what is returned ----------------------------------------------------------------------------------


def test_one_prompt_with_n_1_gives_a_completion_and_anything_else_a_list(tiny: LanguageModel) -> None:
    assert isinstance(tiny.generate("A", length=1), gpt2lab.Completion)
    assert isinstance(tiny.generate([5, 6], length=1), gpt2lab.Completion)
    assert isinstance(tiny.generate(np.array([5, 6]), length=1), gpt2lab.Completion)
    for prompt, n, count in (("A", 2, 2), (["A"], 1, 1), ([[5], [6, 7]], 1, 2), ([], 1, 0)):
        assert len(tiny.generate(prompt, n=n, length=1)) == count


def test_logprobs_are_those_of_the_unfiltered_model(tiny: LanguageModel) -> None:
    assert tiny.generate(PROMPT, length=2).logprobs is None
    completion = tiny.generate(PROMPT, length=5, top_k=3, temperature=0.5, seed=1, logprobs=True, ignore_eos=True)
    prompt = tiny.tokenizer.encode(PROMPT)
    scored = tiny.score([*prompt, *completion.tokens])
    # score puts <|endoftext|> before the first token, so read the same logits without it
    logits = tiny.logits([*prompt, *completion.tokens])[len(prompt) - 1 : -1].astype(np.float64)
    expected = [row[id] - np.log(np.exp(row).sum()) for row, id in zip(logits, completion.tokens, strict=True)]
    assert completion.logprobs == pytest.approx(expected, abs=1e-5)
    assert len(scored.logprobs) == len(prompt) + 5


def test_a_model_without_a_tokenizer_takes_ids_and_says_so_of_text(odd: LanguageModel) -> None:
    completion = odd.generate([1, 2, 3], length=4, seed=1)
    assert odd.tokenizer is None
    assert (len(completion.tokens), completion.text, completion.prompt) == (4, "", [1, 2, 3])
    for prompt, message in (
        ("text", "no tokenizer"),
        ([307], "token id 307"),
        ([-1], "token id -1"),
        ([1.5], "text or"),
    ):
        with pytest.raises(UsageError, match=message):
            odd.generate(prompt)
    with pytest.raises(Gpt2LabError, match="no tokenizer"):
        odd.generate("")
    with pytest.raises(UsageError, match="no tokenizer"):
        odd.generate([1], stop="x")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, UsageError, "n must be at least 1, got 0"),
        ({"n": -1}, UsageError, "n must be at least 1, got -1"),
        ({"n": None}, UsageError, "n must be a whole number, got None"),
        ({"n": 2**65}, UsageError, "sample numbers must be below 2\\^64"),
        ({"stop": None}, UsageError, "stop must be a string or a list of strings, got None"),
        ({"length": -1}, UsageError, "length must be at least 0, got -1"),
        ({"length": 1.5}, UsageError, "length must be a whole number, got 1.5"),
        ({"batch_size": 0}, UsageError, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, UsageError, "seed must be at least 0, got -1"),
        ({"seed": 2**63}, SamplingError, "seed must be below 2\\^63"),
        ({"stop": ""}, UsageError, "stop strings must be non-empty text"),
        ({"stop": ["a", 3]}, UsageError, "stop strings must be non-empty text"),
        ({"overflow": "wrap"}, UsageError, "overflow must be one of error, slide, got 'wrap'"),
        ({"temperature": -0.1}, SamplingError, "temperature"),
        ({"temperature": math.nan}, SamplingError, "temperature"),
        ({"temperature": math.inf}, SamplingError, "temperature"),
        ({"top_k": -1}, SamplingError, "top_k"),
        ({"top_p": 1.1}, SamplingError, "top_p"),
        ({"top_p": -0.1}, SamplingError, "top_p"),
        ({"min_p": 2.0}, SamplingError, "min_p"),
        ({"repetition_penalty": 0.0}, SamplingError, "repetition_penalty"),
        ({"logit_bias": {50257: 1.0}}, UsageError, "token id 50257"),
    ],
)
def test_arguments_out_of_range_are_named_before_any_work(
    tiny: LanguageModel, arguments: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny.generate(PROMPT, **arguments)
    if "n" not in arguments:
        with pytest.raises(error, match=message):
            tiny.stream(PROMPT, **arguments)  # raised by the call, not by the first piece


# ---- looking inside -------------------------------------------------------------------------------------------------


def test_logits_of_an_empty_prompt_are_those_after_end_of_text(tiny: LanguageModel) -> None:
    assert np.array_equal(tiny.logits(""), tiny.logits([END_OF_TEXT]))
    with pytest.raises(ContextError, match="65 tokens"):
        tiny.logits([1] * 65)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def test_score_conditions_the_first_token_on_end_of_text(tiny: LanguageModel) -> None:
    ids = tiny.tokenizer.encode("A text é")
    result = tiny.score("A text é")
    expected = log_softmax(tiny.logits([END_OF_TEXT, *ids[:-1]]))[range(len(ids)), ids]
    assert result.tokens == ids
    assert result.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(-expected.mean()), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(-expected.sum() / math.log(2) / 9, rel=1e-5)
    assert tiny.score(ids) == result


@pytest.mark.parametrize("stride", [None, 20, 64])
def test_score_reads_long_texts_in_windows(tiny: LanguageModel, stride: int | None) -> None:
    ids = list(range(100, 250))
    result = tiny.score(ids, stride=stride)
    inputs = [END_OF_TEXT, *ids]
    for at in (0, 63, 64, 100, 149):
        start = next(s for s, first, end in windows(150, 64, stride or 32) if first <= at < end)
        expected = log_softmax(tiny.logits(inputs[start : at + 1])[-1])[ids[at]]
        assert result.logprobs[at] == pytest.approx(expected, abs=1e-5)
    assert len(result.logprobs) == 150


@pytest.mark.parametrize("n_targets", [1, 7, 8, 9, 12, 13, 40])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_score_every_token_once_with_enough_before_it(n_targets: int, stride: int) -> None:
    cut = list(windows(n_targets, 8, stride))
    assert [at for _, first, end in cut for at in range(first, end)] == list(range(n_targets))
    assert all(end - start <= 8 for start, _, end in cut)
    assert all(first - start >= 8 - stride for start, first, _ in cut[1:])


def test_score_of_nothing_and_without_end_of_text(tiny: LanguageModel, odd: LanguageModel) -> None:
    empty = tiny.score("")
    assert (empty.tokens, empty.logprobs, empty.bits_per_byte) == ([], [], None)
    assert math.isnan(empty.perplexity)
    result = odd.score([5, 6, 7])
    assert (result.tokens, result.n_bytes, result.bits_per_byte) == ([6, 7], None, None)
    with pytest.raises(UsageError, match="stride must be from 1 to the model's context of 40, got 41"):
        odd.score([5, 6], stride=41)


def test_next_token_shows_each_stage_and_its_likeliest_tokens(tiny: LanguageModel) -> None:
    result = tiny.next_token(PROMPT, temperature=0.7, top_k=5, top_p=0.9, top=3)
    assert [stage.name for stage in result.stages] == ["model", "temperature", "top_k", "top_p"]
    assert result.tokens == tiny.tokenizer.encode(PROMPT)
    probabilities = np.exp(log_softmax(tiny.logits(PROMPT)[-1]))
    best = np.argsort(-probabilities)[:3]
    assert [c.id for c in result.stages[0].candidates] == best.tolist()
    assert [c.probability for c in result.stages[0].candidates] == pytest.approx(probabilities[best].tolist(), rel=1e-4)
    assert result.stages[2].kept == 5
    assert result.candidates == result.stages[-1].candidates
    assert result.candidates[0].text == tiny.tokenizer.decode([best[0]])
    assert len(tiny.next_token(PROMPT, temperature=0).candidates) == 1
    with pytest.raises(UsageError, match="top must be at least 1"):
        tiny.next_token(PROMPT, top=0)


# ---- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "q8_0"}, "q8_0 is a file format; as a precision choose int8"),
        ({"precision": "q4_0", "device": "reference"}, "q4_0 is a file format; as a precision choose int4"),
        ({"precision": "int3"}, "precision 'int3' is not available: choose one of float32, bfloat16, int8, int4"),
        (
            {"kv_precision": "int4"},
            "kv_precision 'int4' is not available: choose one of float32, float16, bfloat16, int8",
        ),
        ({"kv_precision": "bfloat16"}, "kv_precision 'bfloat16' requires precision 'bfloat16'"),
        ({"device": "tpu"}, "device 'tpu' is not available: choose one of cpu, cuda, mps, auto, reference, torch-cpu"),
        ({"device": "reference", "precision": "int8"}, "precision 'int8' is not available on device reference"),
        ({"device": "reference", "kv_precision": "float16"}, "kv_precision 'float16' is not available on device ref"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_load_names_what_is_available(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gpt2lab.load(GOLDEN / "tiny", **arguments)


def test_loading_what_is_not_there_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        gpt2lab.load(tmp_path / "nothing")


def test_loading_what_is_corrupt_is_a_checkpoint_error_at_once(tmp_path: Path) -> None:
    for file in (GOLDEN / "tiny").iterdir():
        shutil.copy(file, tmp_path)
    os.truncate(tmp_path / "model.ckpt.data-00000-of-00001", 5000)
    with pytest.raises(CheckpointError, match="cut short or corrupt"):
        gpt2lab.load(tmp_path)


# ---- precisions -----------------------------------------------------------------------------------------------------


def test_text_is_made_in_8_bits_and_numbers_in_float32_unless_told_otherwise(device: str) -> None:
    model = gpt2lab.load(GOLDEN / "odd", device=device)
    assert model.precision == ("int8" if device == "cpu" else "float32")
    assert model.exact_precision == "float32"
    exact = gpt2lab.load(GOLDEN / "odd", precision="float32", device=device)
    assert np.array_equal(model.logits([1, 2, 3]), exact.logits([1, 2, 3]))
    assert model.score([1, 2, 3]) == exact.score([1, 2, 3])
    assert model.next_token([1]) == exact.next_token([1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_that_is_asked_for_is_that_of_everything(precision: str) -> None:
    model = gpt2lab.load(GOLDEN / "odd", precision=precision)
    assert (model.precision, model.exact_precision) == (precision, precision)
    prompt = [1, 2, 3]
    completion = model.generate(prompt, length=5, temperature=0)
    for n, token in enumerate(completion.tokens):
        assert model.logits([*prompt, *completion.tokens[:n]])[-1].argmax() == token
    assert len(model._engines.opened) == 1


def test_an_engine_is_opened_when_it_is_first_needed() -> None:
    model = gpt2lab.load(GOLDEN / "odd")
    assert len(model._engines.opened) == 0
    with pytest.raises(ContextError):
        model.logits([1] * 100)
    with pytest.raises(ContextError):
        model.generate([1] * 100)
    assert len(model._engines.opened) == 0
    model.logits([1])
    assert len(model._engines.opened) == 1
    model.generate([1], length=1)
    model.score([1, 2])
    assert len(model._engines.opened) == 2


def test_threads_that_need_an_engine_at_once_open_one() -> None:
    model = gpt2lab.load(GOLDEN / "odd", threads=1)
    with ThreadPoolExecutor(8) as threads:
        completions = list(threads.map(lambda _: model.generate([1], length=3, seed=1), range(8)))
    assert completions == [completions[0]] * 8
    assert len(model._engines.opened) == 1


def test_a_model_tells_what_it_is(device: str) -> None:
    model = gpt2lab.load(GOLDEN / "odd", device=device)
    how = "int8, keys and values in int8, scores in float32, device cpu"
    if device == "reference":
        how = "float32, keys and values in float32, device reference"
    path = str(GOLDEN / "odd")
    assert repr(model) == f"<LanguageModel {path!r}: 0.1M parameters, n_ctx 40, {how}>"
    drafted = gpt2lab.load(GOLDEN / "odd", device=device, draft=model)
    assert repr(drafted) == f"<LanguageModel {path!r}: 0.1M parameters, n_ctx 40, {how}, draft {path!r}>"


def test_keys_and_values_are_held_as_a_model_tells() -> None:
    wide, narrow = gpt2lab.load(GOLDEN / "odd", kv_precision="float32"), gpt2lab.load(GOLDEN / "odd")
    assert "int8, keys and values in float32" in repr(wide)
    assert "int8, keys and values in int8" in repr(narrow)
    bytes_of = [model._engines.generating.kv_cache_bytes_per_token for model in (wide, narrow)]
    assert bytes_of[0] > 2 * bytes_of[1]


@pytest.mark.parametrize("arguments", [{"name_or_path": 124}, {"name_or_path": GOLDEN / "odd", "draft": 124}])
def test_what_names_no_model_is_refused(arguments: dict) -> None:
    with pytest.raises(UsageError, match="a model must be a name or a path, got 124"):
        gpt2lab.load(**arguments)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import gpt2lab, sys; print({'numpy', 'click', 'tiktoken', 'gpt2lab.model'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there() -> None:
    assert all(getattr(gpt2lab, name) is not None for name in gpt2lab.__all__)
    assert set(gpt2lab.__all__) <= set(dir(gpt2lab))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gpt2lab.nothing


# ---- what a prompt may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [np.array([464, 582]), np.array([464, 582], np.uint16), (464, 582), range(464, 466)])
def test_any_sequence_of_whole_numbers_is_one_prompt(tiny: LanguageModel, prompt) -> None:
    expected = tiny.generate([int(id) for id in prompt], length=3, seed=1)
    assert tiny.generate(prompt, length=3, seed=1).tokens == expected.tokens
    assert np.array_equal(tiny.logits(prompt), tiny.logits([int(id) for id in prompt]))


def test_prompts_of_every_kind_may_be_mixed(tiny: LanguageModel) -> None:
    mixed = tiny.generate(["A", [464], np.array([464]), (464,), "", []], length=3, temperature=0)
    assert [len(completion.tokens) for completion in mixed] == [3] * 6
    assert mixed[1].tokens == mixed[2].tokens == mixed[3].tokens
    assert mixed[4].tokens == mixed[5].tokens
    rows = tiny.generate(np.array([[464, 582], [464, 582]]), length=3, temperature=0)
    assert rows[0].tokens == rows[1].tokens


@pytest.mark.parametrize("prompt", [None, 5, {1, 2}, {"a": 1}, iter([1]), b"abc", [1, "a"], np.array([1.5])])
def test_what_is_no_prompt_is_named_in_one_line(tiny: LanguageModel, prompt) -> None:
    for take in (tiny.generate, tiny.stream, tiny.logits, tiny.score, tiny.next_token):
        with pytest.raises(UsageError, match="a prompt is text or a sequence of token ids, got ") as raised:
            take(prompt)
        assert len(str(raised.value)) < 200
        assert "\n" not in str(raised.value)


def test_a_misspelt_option_is_not_passed_over(tiny: LanguageModel) -> None:
    for take in (tiny.generate, tiny.stream, tiny.pieces, tiny.next_token):
        with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
            take("A", temprature=0.5)


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_a_prompt_that_ends_in_a_space_is_warned_of_at_the_call(tiny: LanguageModel, method: str) -> None:
    with pytest.warns(UserWarning, match="^the prompt ends in a space") as caught:
        getattr(tiny, method)("The king ", length=1)
    assert caught[0].filename == __file__


def test_the_warning_names_the_first_of_several_prompts_that_ends_in_a_space(tiny: LanguageModel) -> None:
    with pytest.warns(UserWarning, match="^prompt 2 ends in a space"):
        tiny.generate(["The king", "The queen ", [464, 220]], length=1)


@pytest.mark.filterwarnings("error")
def test_token_ids_that_end_in_a_space_are_not_warned_of(tiny: LanguageModel) -> None:
    tiny.generate([464, 220], length=1)


def test_a_stream_is_of_one_sample(tiny: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"stream\(\) takes one prompt, got 2"):
        tiny.stream(["A", "B"])
    with pytest.raises(TypeError):
        tiny.stream("A", n=2)


# ---- more ids than the tokenizer has ---------------------------------------------------------------------------------


def padded_model(n_vocab: int) -> LanguageModel:
    """Return a model whose likeliest ids by far have no text."""
    config = ModelConfig(n_vocab=n_vocab, n_ctx=16, n_embd=8, n_head=1, n_layer=1)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    tensors["ln_f.bias"] += 1
    tensors["wte.weight"][50257:] = 50
    checkpoint = Checkpoint(config, tensors, None, "nanogpt", "float32", Path("padded"))
    return LanguageModel(Engines(checkpoint, device="reference"), tokenizer_of(checkpoint))


def test_ids_beyond_the_tokenizer_are_never_drawn() -> None:
    model = padded_model(50304)
    completion = model.generate("A", length=5, seed=1, logit_bias={7: 1.0}, ignore_eos=True)
    assert max(completion.tokens) < 50257
    assert model.next_token("A").stages[-1].candidates[0].id < 50257


def test_a_much_larger_vocabulary_is_not_taken_for_gpt2s() -> None:
    assert padded_model(60000).tokenizer is None

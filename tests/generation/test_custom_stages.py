"""Custom stages of sampling: their places, their arguments, the results that they may return, and their errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2lab
from gpt2lab import CustomStage
from gpt2lab.engines.protocol import Draw
from gpt2lab.errors import StageError, UsageError
from gpt2lab.generation import custom_draws
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.model import LanguageModel
from gpt2lab.sampling import SamplingParams, rules

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPT = [1, 2, 3, 1, 2, 3, 1, 2]
SHARE = 0.3


def min_p(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.where(logits >= logits.max() + np.log(np.float32(SHARE)), logits, -np.inf)


def unchanged(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return logits


def fails_for_some(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    if len(tokens) > len(PROMPT) + 1 and tokens[-1] % 7 == 3:
        raise ZeroDivisionError("a bad token\nand more")
    return logits


@pytest.fixture(scope="module", params=["cpu", "reference"])
def odd(request: pytest.FixtureRequest) -> LanguageModel:
    """Make a model with n_vocab 307, n_ctx 40 and no tokenizer."""
    return gpt2lab.load(GOLDEN / "odd", precision="float32", device=request.param, threads=1)


@pytest.fixture(scope="module")
def native() -> LanguageModel:
    return gpt2lab.load(GOLDEN / "odd", precision="float32", threads=1)


@pytest.fixture(scope="module")
def tales() -> LanguageModel:
    return gpt2lab.load("tales", threads=1)


# ---- what is drawn --------------------------------------------------------------------------------------------------


def drawn(model: LanguageModel, batch_size: int, guesses: bool, n_seeds: int, **more: Any) -> list[list[int]]:
    """Draw six tokens for each of ``n_seeds`` seeds."""
    speculation = Speculation(model.config) if guesses else None
    with Scheduler(model.engine, batch_size=batch_size, speculation=speculation) as scheduler:
        requests = [Request(tuple(PROMPT), seed=seed, stream=0, limit=6, **more) for seed in range(n_seeds)]
        tokens: dict[int, list[int]] = {scheduler.submit(request): [] for request in requests}
        while scheduler.busy:
            for event in scheduler.step():
                tokens[event.request].append(event.token)
    return list(tokens.values())


@pytest.fixture(scope="module")
def with_the_built_in_stage(native: LanguageModel) -> list[list[int]]:
    return drawn(native, 8, False, 1000, params=SamplingParams(min_p=SHARE))


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("guesses", [False, True])
def test_min_p_written_as_a_function_draws_the_built_in_s_tokens_for_1000_seeds(
    native, with_the_built_in_stage, batch_size, guesses
):
    stages = (CustomStage(min_p, before="draw"),)
    assert drawn(native, batch_size, guesses, 1000, params=SamplingParams(), stages=stages) == with_the_built_in_stage


@pytest.mark.parametrize("more", [{"temperature": 0.8, "repetition_penalty": 1.3}, {"top_k": 9, "top_p": 0.9}])
def test_so_it_does_behind_other_stages(odd, more):
    for seed in range(10):
        built_in = odd.generate([PROMPT], n=4, length=8, seed=seed, min_p=SHARE, **more)
        own = odd.generate([PROMPT], n=4, length=8, seed=seed, stages=[CustomStage(min_p, after="top_p")], **more)
        assert [each.tokens for each in own] == [each.tokens for each in built_in]


@pytest.mark.parametrize("options", [{}, {"speculation": "off"}, {"batch_size": 1}, {"overflow": "slide"}])
def test_a_stage_that_changes_nothing_changes_nothing(odd, options):
    length = 60 if options.get("overflow") else 20
    expected = odd.generate(
        [PROMPT], n=3, length=length, seed=5, temperature=0.5, overflow=options.get("overflow", "error")
    )
    found = odd.generate([PROMPT], n=3, length=length, seed=5, temperature=0.5, stages=[unchanged], **options)
    assert [each.tokens for each in found] == [each.tokens for each in expected]


def test_a_text_with_a_stage_of_ones_own_is_the_same_with_guesses_and_without(tales):
    def no_t(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        logits[tokens[-5:]] -= 1
        return logits

    texts = {
        tuple(each.text for each in tales.generate("the king the king the king", n=2, length=40, seed=2, **options))
        for options in (
            {"stages": [no_t], "temperature": 0.3},
            {"stages": [no_t], "temperature": 0.3, "speculation": "off"},
            {"stages": [no_t], "temperature": 0.3, "batch_size": 1},
        )
    }
    assert len(texts) == 1


def test_only_logits_that_are_drawn_from_are_computed():
    engine = gpt2lab.load(GOLDEN / "odd", precision="float32", threads=1).engine
    sequence, alone = engine.new_sequence(), engine.new_sequence()
    (plain,) = engine.step([alone], [PROMPT], [Draw(SamplingParams(temperature=0), 0, 0, 8)])
    forward, n_rows = engine.forward, []

    def counted(*arguments: Any) -> np.ndarray:
        logits = forward(*arguments)
        n_rows.append(len(logits))
        return logits

    engine.forward = counted
    draw = Draw(SamplingParams(temperature=0), 0, 0, 8, PROMPT, 3, stages=(CustomStage(unchanged),))
    (found,), errors = custom_draws.step(engine, [sequence], [[*PROMPT, plain[0].token, 300]], [draw])
    assert found[0].token == plain[0].token and len(found) >= 2 and not errors
    assert n_rows == [0, 3]


def test_a_stream_goes_through_the_stages(tales):
    def top_3(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return np.where(logits >= np.sort(logits)[-3], logits, -np.inf)

    assert (
        "".join(tales.stream("Once", length=12, seed=1, stages=[top_3]))
        == tales.generate("Once", length=12, seed=1, top_k=3).text
    )


def test_logprobs_are_the_model_s_own(odd):
    one = odd.generate([PROMPT], length=5, seed=1, logprobs=True, top_logprobs=2, min_p=SHARE)[0]
    other = odd.generate([PROMPT], length=5, seed=1, logprobs=True, top_logprobs=2, stages=[min_p])[0]
    assert other.logprobs == pytest.approx(one.logprobs, abs=1e-5)
    assert [[id for id, _ in top] for top in other.top_logprobs] == [[id for id, _ in top] for top in one.top_logprobs]


# ---- what it is given -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [PROMPT, [7]])
def test_it_is_given_float32_logits_and_the_ids_so_far_once_for_each_token(odd, prompt):
    seen: list[list[int]] = []

    def stage(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        assert (logits.shape, logits.dtype, tokens.dtype) == ((307,), np.float32, np.int64)
        seen.append(tokens.tolist())
        return logits

    (completion,) = odd.generate([prompt], length=6, seed=3, stages=[stage], speculation="off")
    assert seen == [[*prompt, *completion.tokens[:n]] for n in range(6)]


def test_the_start_that_an_empty_prompt_stands_for_is_none_of_the_ids(tales):
    seen: list[int] = []

    def stage(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        seen.append(len(tokens))
        return logits

    tales.generate("", length=3, seed=1, stages=[stage])
    assert seen[0] == 0


def test_changing_what_it_is_given_harms_nothing(odd):
    def spoils(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        result = logits.copy()
        logits[:] = np.nan
        tokens[:] = 0
        return result

    expected = odd.generate([PROMPT], n=2, length=8, seed=4, repetition_penalty=1.5)
    found = odd.generate([PROMPT], n=2, length=8, seed=4, repetition_penalty=1.5, stages=[spoils])
    assert [each.tokens for each in found] == [each.tokens for each in expected]


# ---- where it stands ------------------------------------------------------------------------------------------------

EVERYTHING = SamplingParams(0.9, 5, 0.9, 0.01, 1.1, logit_bias={1: 0.5})
BUILT_IN = ["model", "logit_bias", "penalties", "temperature", "top_k", "top_p", "min_p"]
LOGITS = np.linspace(0, 3, 12)


def names(*custom: CustomStage, params: SamplingParams = EVERYTHING) -> list[str]:
    return [stage.name for stage in rules.stages(LOGITS, params, [1], custom)]


@pytest.mark.parametrize("place", BUILT_IN[1:])
def test_before_and_after_a_built_in_stage(place):
    at = BUILT_IN.index(place)
    assert names(CustomStage(unchanged, before=place)) == [*BUILT_IN[:at], "unchanged", *BUILT_IN[at:]]
    assert names(CustomStage(unchanged, after=place)) == [*BUILT_IN[: at + 1], "unchanged", *BUILT_IN[at + 1 :]]


def test_the_default_place_is_before_the_temperature():
    assert CustomStage(unchanged).place == "temperature"


def test_the_first_place_and_the_last():
    assert names(CustomStage(unchanged, after="model"), CustomStage(min_p, before="draw")) == [
        "model",
        "unchanged",
        *BUILT_IN[1:],
        "min_p",
    ]


def test_a_place_is_there_even_if_its_stage_is_off():
    assert names(CustomStage(unchanged, after="top_k"), params=SamplingParams()) == ["model", "unchanged"]


def test_stages_at_one_place_keep_their_order():
    assert names(CustomStage(unchanged), CustomStage(min_p), params=SamplingParams()) == ["model", "unchanged", "min_p"]


def test_temperature_0_takes_the_likeliest_of_what_it_left(odd):
    def not_the_likeliest(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        logits[np.argmax(logits)] = -np.inf
        return logits

    second = np.argsort(-odd.logits(PROMPT)[-1])[1]
    assert odd.generate([PROMPT], length=1, temperature=0, stages=[not_the_likeliest])[0].tokens == [second]


def test_next_token_shows_it_by_its_name(odd):
    stages = odd.next_token(PROMPT, temperature=0.5, stages=[min_p, CustomStage(unchanged, before="draw")]).stages
    assert [stage.name for stage in stages] == ["model", "min_p", "temperature", "unchanged"]
    assert stages[1].kept == odd.next_token(PROMPT, min_p=SHARE).stages[-1].kept


def test_an_object_that_can_be_called_has_its_class_s_name():
    class Sharpen:
        def __call__(self, logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            return logits * 2

    assert CustomStage(Sharpen()).name == "Sharpen"


def test_what_a_bias_rules_out_stays_out(odd):
    def all_alike(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return np.zeros_like(logits)

    out = dict.fromkeys(range(300), float("-inf"))
    for where in ({"after": "logit_bias"}, {"before": "draw"}, {"before": "logit_bias"}):
        stages = [CustomStage(all_alike, **where)]
        assert min(odd.generate([PROMPT], length=20, seed=1, logit_bias=out, stages=stages)[0].tokens) >= 300


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CustomStage(min_p, before="top_k", after="top_p"), "stage min_p: give either before or after"),
        (lambda: CustomStage(min_p, before="model"), "stage min_p: before must be one of logit_bias, .*, got 'model'"),
        (lambda: CustomStage(min_p, after="draw"), "stage min_p: after must be one of model, .*, got 'draw'"),
        (lambda: CustomStage("min_p"), r"a stage must be a function f\(logits, tokens\), got 'min_p'"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(make: Callable[[], Any], message: str):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("call", ["generate", "stream", "pieces", "next_token"])
def test_what_is_no_list_of_stages_is_refused_at_once(odd, call):
    with pytest.raises(UsageError, match=r"stages must be a list of functions f\(logits, tokens\), got <function"):
        getattr(odd, call)(PROMPT, stages=min_p)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda logits: None, "returned None: it must return the logits"),
        (lambda logits: logits[:5], r"must return 307 logits, one per token, got an array of float32 with shape \[5\]"),
        (lambda logits: logits > 0, r"must return 307 logits, one per token, got an array of bool with shape \[307\]"),
        (lambda logits: "logits", r"must return 307 logits, one per token, got an array of <U6 with shape \[\]"),
        (lambda logits: logits * np.nan, "returned nan as the logit of token 0; use finite logits or -inf"),
        (lambda logits: logits + np.inf, "returned inf as the logit of token 0; use finite logits or -inf"),
        (lambda logits: logits - np.inf, "ruled out every token: it must leave at least one logit above -inf"),
        (lambda logits: 1 // 0, "failed after 8 tokens: ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_what_it_returns_is_checked(odd, returned, message):
    def mine(logits: np.ndarray, tokens: np.ndarray) -> Any:
        return returned(logits)

    for call in (odd.generate, lambda *a, **k: list(odd.stream(*a, **k)), odd.next_token):
        with pytest.raises(StageError, match=f"^stage mine {message}$"):
            call(PROMPT, stages=[mine])


def test_any_precision_may_be_returned(odd):
    expected = odd.generate([PROMPT], length=5, seed=1)[0].tokens
    for convert in (list, np.float64):
        stages = [lambda logits, tokens, convert=convert: convert(logits)]
        assert odd.generate([PROMPT], length=5, seed=1, stages=stages)[0].tokens == expected


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"speculation": "off"}])
def test_an_error_ends_its_sample_alone(odd, options):
    expected = odd.generate([PROMPT], n=8, length=10, seed=1)
    with pytest.warns(UserWarning, match=r"stage fails_for_some failed .* of 8 samples: see error"):
        found = odd.generate([PROMPT], n=8, length=10, seed=1, stages=[fails_for_some], **options)
    for one, other in zip(found, expected, strict=True):
        ends = [n for n in range(2, 10) if other.tokens[n - 1] % 7 == 3]
        if ends:
            assert (one.finish_reason, one.tokens) == ("error", other.tokens[: ends[0]])
        else:
            assert (one.finish_reason, one.tokens, one.error) == ("length", other.tokens, None)
    assert {each.finish_reason for each in found} == {"error", "length"}


def test_a_stage_that_leaves_too_little_for_a_later_one_ends_its_sample_alone(odd):
    expected = odd.generate([PROMPT], n=8, length=10, seed=1, logit_bias={7: float("-inf")})

    def leaves_what_is_ruled_out(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        if tokens[-1] % 7 == 3 and len(tokens) > len(PROMPT) + 1:
            logits[np.arange(len(logits)) != 7] = -np.inf
        return logits

    stage = gpt2lab.CustomStage(leaves_what_is_ruled_out, before="logit_bias")
    with pytest.warns(UserWarning, match="of 8 samples"):
        found = odd.generate([PROMPT], n=8, length=10, seed=1, logit_bias={7: float("-inf")}, stages=[stage])
    assert {each.finish_reason for each in found} == {"error", "length"}
    assert all(one.tokens == other.tokens[: len(one.tokens)] for one, other in zip(found, expected, strict=True))


def test_an_error_has_the_traceback_of_what_was_raised(odd):
    with pytest.raises(StageError) as raised:
        odd.generate(PROMPT, length=30, seed=1, stages=[fails_for_some])
    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "fails_for_some"
    assert str(raised.value).endswith("ZeroDivisionError: a bad token and more")


def test_the_last_piece_of_a_sample_that_failed_has_its_error(odd):
    pieces = list(odd.pieces([PROMPT], length=30, seed=1, stages=[fails_for_some]))
    assert isinstance(pieces[-1].completion.error, StageError)
    assert len(pieces[-1].completion.tokens) == len(pieces) - 1


def test_a_stream_gives_its_text_before_it_raises(tales):
    def fails_later(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        if len(tokens) > 8:
            raise KeyError("late")
        return logits

    came = []
    with pytest.raises(StageError, match="KeyError: 'late'"):
        for text in tales.stream("Once upon a time", length=30, seed=1, stages=[fails_later]):
            came.append(text)
    assert tales.generate("Once upon a time", length=5, seed=1).text == "".join(came)


def test_an_interrupt_is_no_error_of_a_sample(odd):
    def interrupted(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        odd.generate([PROMPT], n=2, length=5, stages=[interrupted])


def test_nothing_is_held_afterwards(odd):
    for stage in (unchanged, fails_for_some):
        list(odd.pieces([PROMPT], n=4, length=10, seed=1, stages=[stage]))
    engine = odd.engine
    assert (engine.kv_cache_bytes if hasattr(engine, "kv_cache_bytes") else engine.n_sequences) == 0

"""Traces against the readable forward pass, and their sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2lab import LanguageModel, load
from gpt2lab.errors import UsageError
from gpt2lab.reference import forward

TINY = Path(__file__).parents[1] / "golden" / "tiny"
PROMPT = "The king said to the queen that he had seen a fox"


def activations(model: LanguageModel, ids) -> dict[tuple[str, int], np.ndarray]:
    """Return everything that the readable forward pass computes, by site and layer."""
    found = {}

    def keep(site: str, layer: int, x: np.ndarray) -> np.ndarray:
        found[site, layer] = x.copy()
        return x

    forward(dict(model.checkpoint.tensors), model.config, ids, hook=keep)
    return found


def check_against_the_reference(model: LanguageModel, ids) -> None:
    trace, expected, config = model.trace(ids), activations(model, ids), model.config
    for layer in range(config.n_layer):
        for name, values in {
            "resid_pre": trace.residual[layer],
            "resid_mid": trace.residual_mid[layer],
            "attn_out": trace.attn_out[layer],
            "mlp_out": trace.mlp_out[layer],
            "z": trace.z[layer].reshape(len(ids), -1),
            "q": trace[f"blocks.{layer}.attn.hook_q"].reshape(len(ids), -1),
            "pattern": trace.attention[layer],
        }.items():
            scale = max(1, np.abs(expected[name, layer]).max())
            np.testing.assert_allclose(values, expected[name, layer], rtol=0, atol=1e-4 * scale, err_msg=name)
    end = expected["resid_pre", config.n_layer]
    np.testing.assert_allclose(trace.residual[-1], end, rtol=0, atol=1e-4 * max(1, np.abs(end).max()))


def test_a_trace_is_what_the_readable_forward_pass_computes(tiny):
    check_against_the_reference(tiny, tiny.tokenizer.encode(PROMPT))


@pytest.mark.parametrize("switch", ["gelu", "relu", "silu", "wide", "epsilon", "unscaled", "scaled by layer", "all"])
def test_a_trace_has_the_numbers_of_every_member_of_the_family(tmp_path, switch):
    import family

    family.save(switch, tmp_path)
    check_against_the_reference(load(tmp_path, precision="float32"), family.tokens(20))


def test_the_reference_device_traces_itself(tiny):
    check_against_the_reference(load(tiny.checkpoint.path, device="reference"), tiny.tokenizer.encode(PROMPT))


def test_shapes_and_dtypes_are_those_of_the_docs(tiny):
    trace = tiny.trace(PROMPT, last=2)
    n_layer, n_head, n_embd, n_seq = 3, 4, tiny.config.n_embd, len(trace.ids)
    shapes = {
        "residual": (n_layer + 1, 2, n_embd),
        "residual_mid": (n_layer, 2, n_embd),
        "attn_out": (n_layer, 2, n_embd),
        "mlp_out": (n_layer, 2, n_embd),
        "z": (n_layer, 2, n_head, n_embd // n_head),
        "attention": (n_layer, n_head, 2, n_seq),
    }
    assert {name: getattr(trace, name).shape for name in shapes} == shapes
    assert {getattr(trace, name).dtype for name in shapes} == {np.dtype(np.float32)}
    assert trace.first == n_seq - 2


def test_the_last_row_of_the_lens_is_the_engines_logits_in_every_precision(each):
    logits, trace = each.logits(PROMPT), each.trace(PROMPT)
    for position in range(len(trace.ids)):
        np.testing.assert_array_equal(trace.lens(position)[-1], logits[position])


def test_recording_few_positions_gives_the_numbers_of_recording_all(each):
    whole, few = each.trace(PROMPT), each.trace(PROMPT, last=3)
    for name in ("residual", "residual_mid", "attn_out", "mlp_out", "z"):
        np.testing.assert_array_equal(getattr(few, name), getattr(whole, name)[:, -3:], err_msg=name)
    np.testing.assert_allclose(few.attention, whole.attention[:, :, -3:], rtol=0, atol=1e-6)


def test_the_parts_of_the_stream_add_up(each):
    trace = each.trace(PROMPT)
    np.testing.assert_array_equal(trace.residual[:-1] + trace.attn_out, trace.residual_mid)
    np.testing.assert_array_equal(trace.residual_mid + trace.mlp_out, trace.residual[1:])


def test_attention_looks_back_and_adds_up_to_one(each):
    attention = each.trace(PROMPT).attention
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
    assert not attention[..., np.triu(np.ones(attention.shape[-2:], bool), 1)].any()


def test_contributions_add_up_to_the_logit(each):
    trace = each.trace(PROMPT)
    for position in (0, -1):
        for token in (0, 11, 464):
            found = trace.contributions(token, position)
            assert found.logit == trace.lens(position)[-1, token]
            parts = [found.embedding, found.position, *found.attention, *found.mlp, found.norm_bias, found.rest]
            assert sum(map(float, parts)) == pytest.approx(found.logit, abs=1e-4)


def test_in_float32_contributions_explain_all_of_the_logit(tiny):
    trace = tiny.trace(PROMPT)
    assert max(abs(trace.contributions(token).rest) for token in range(0, 500, 50)) < 1e-3


def test_a_contribution_is_the_part_of_the_stream_in_the_direction_of_the_token(tiny):
    trace, token = tiny.trace(PROMPT), 464
    weights = dict(tiny.checkpoint.tensors)
    x = trace.residual[-1, -1].astype(np.float64)
    scale = np.sqrt(x.var() + tiny.config.layer_norm_epsilon)

    def part(term: np.ndarray) -> float:
        return float(((term - term.mean()) / scale * weights["ln_f.weight"]) @ weights["wte.weight"][token])

    found = trace.contributions(token)
    for layer in range(3):
        assert found.attention[layer] == pytest.approx(part(trace.attn_out[layer, -1]), abs=1e-4)
        assert found.mlp[layer] == pytest.approx(part(trace.mlp_out[layer, -1]), abs=1e-4)
        projection = weights[f"h.{layer}.attn.c_proj.weight"].reshape(4, -1, tiny.config.n_embd)
        for head in range(4):
            expected = part(trace.z[layer, -1, head] @ projection[head])
            assert found.heads[layer, head] == pytest.approx(expected, abs=1e-4)
    assert found.embedding == pytest.approx(part(weights["wte.weight"][trace.ids[-1]]), abs=1e-4)
    assert found.position == pytest.approx(part(weights["wpe.weight"][len(trace.ids) - 1]), abs=1e-4)


def test_a_trace_shows_itself_in_a_line(tiny):
    n = len(tiny.tokenizer.encode(PROMPT))
    assert repr(tiny.trace(PROMPT)) == f"<Trace of {n} tokens: 3 layers, 4 heads>"
    assert repr(tiny.trace(PROMPT, last=2)) == f"<Trace of {n} tokens at the last 2 positions: 3 layers, 4 heads>"


def test_contributions_show_the_largest_terms(tiny):
    found = tiny.trace(PROMPT).contributions(464)
    largest = max(range(3), key=lambda layer: abs(found.mlp[layer]))
    shown = repr(found._replace(mlp=found.mlp * 1000))
    terms = f"MLP of layer {largest} {found.mlp[largest] * 1000:+.2f}"
    assert shown.startswith(f"<Contributions to the logit {found.logit:.2f} of token 464: {terms}, ")
    assert len(shown) < 200


def test_recording_changes_nothing_that_follows(each):
    before = each.logits(PROMPT)
    each.trace(PROMPT)
    np.testing.assert_array_equal(each.logits(PROMPT), before)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda tiny: tiny.trace(PROMPT, last=0), "last must be at least 1"),
        (lambda tiny: tiny.trace(PROMPT, last=2).lens(2), "there is no position 2"),
        (lambda tiny: tiny.trace(PROMPT).lens(1.5), "position must be a whole number"),
        (lambda tiny: tiny.trace(PROMPT).contributions(99999), "token id 99999"),
        (lambda tiny: tiny.trace(PROMPT).contributions(1.5), "token must be a whole number"),
        (lambda tiny: tiny.trace(PROMPT)["blocks.0.hook_nothing"], r"no hook 'blocks\.0\.hook_nothing'"),
        (lambda tiny: tiny.trace(PROMPT)["blocks.3.hook_resid_pre"], "no layer 3: layers are 0 to 2"),
        (lambda tiny: tiny.trace(PROMPT)[5], "no hook 5"),
        (lambda tiny: tiny.patched(mlps=[1.5]), "layer must be a whole number"),
        (lambda tiny: tiny.patched(heads=[(0, 1.5)]), "head must be a whole number"),
        (lambda tiny: tiny.embed([], pooling="max"), "pooling must be 'mean' or 'last'"),
    ],
)
def test_what_cannot_be_traced_is_one_line(tiny, ask, message):
    with pytest.raises(UsageError, match=message):
        ask(tiny)


def test_the_nearest_tokens_have_the_largest_cosines(tiny):
    wte = tiny.checkpoint.tensors["wte.weight"]
    lengths = np.linalg.norm(wte, axis=-1)
    cosines = wte @ wte[464] / (lengths * lengths[464])
    cosines[464] = -1
    found = tiny.nearest_tokens(464, top=5)
    assert [neighbour.token for neighbour in found] == np.argsort(-cosines)[:5].tolist()
    np.testing.assert_allclose([neighbour.cosine for neighbour in found], np.sort(-cosines)[:5] * -1, atol=1e-5)


def test_a_tokens_own_embedding_is_nearest_to_itself(each):
    vector = each.engine.token_row(11, False)
    ((token, cosine),) = each.nearest_tokens(vector, top=1)
    assert token == 11 and cosine == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("precision", "kv_precision"), [("float32", "float16"), ("bfloat16", "bfloat16"), ("float32", "int8")]
)
def test_attention_is_that_of_rounded_keys(tiny, precision, kv_precision):
    rounded = load(TINY, threads=1, precision=precision, kv_precision=kv_precision).trace(PROMPT)
    np.testing.assert_allclose(rounded.attention, tiny.trace(PROMPT).attention, atol=0.02)

"""Steering: what a vector changes, that zeros change nothing, and that other texts of a batch do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab import load
from gpt2lab.engines.hooks import Edit
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError
from gpt2lab.reference import forward

PROMPT = "The king said to the queen"


@pytest.fixture(scope="module")
def vector(tiny):
    return np.random.default_rng(0).normal(size=tiny.config.n_embd).astype(np.float32)


def steered_reference(model, ids, add) -> np.ndarray:
    def hook(site, layer, x):
        return x + add[site, layer] if (site, layer) in add else x

    return forward(dict(model.checkpoint.tensors), model.config, ids, hook=hook)[0]


@pytest.mark.parametrize(
    "place, site",
    [
        (0, ("resid_pre", 0)),
        (2, ("resid_pre", 2)),
        ("blocks.1.hook_resid_pre", ("resid_pre", 1)),
        ("blocks.1.hook_resid_mid", ("resid_mid", 1)),
        ("blocks.2.hook_resid_post", ("resid_pre", 3)),
        ("blocks.0.hook_attn_out", ("attn_out", 0)),
        ("blocks.0.hook_mlp_out", ("mlp_out", 0)),
        ("blocks.1.attn.hook_z", ("z", 1)),
        ("blocks.1.attn.hook_q", ("q", 1)),
    ],
)
def test_logits_equal_those_of_the_readable_forward_pass(tiny, vector, place, site):
    ids = tiny.tokenizer.encode(PROMPT)
    found = tiny.steered({place: vector}).logits(PROMPT)
    np.testing.assert_allclose(found, steered_reference(tiny, ids, {site: vector}), rtol=0, atol=1e-4)
    assert np.abs(found - tiny.logits(PROMPT)).max() > 0.01


def test_every_member_of_the_family_is_steered(tmp_path):
    import family

    family.save("all", tmp_path)
    model, ids = load(tmp_path), family.tokens(12)
    vector = np.linspace(-1, 1, 40, dtype=np.float32)
    expected = steered_reference(model, ids, {("resid_pre", 1): vector})
    np.testing.assert_allclose(model.steered({1: vector}).logits(ids), expected, rtol=0, atol=1e-4)


def test_a_vector_of_zeros_changes_no_bit(each):
    zeros = {layer: np.zeros(each.config.n_embd) for layer in range(3)}
    np.testing.assert_array_equal(each.steered(zeros).logits(PROMPT), each.logits(PROMPT))
    options = {"length": 10, "seed": 2, "logprobs": True}
    plain, steered = each.generate(PROMPT, **options), each.generate(PROMPT, add=zeros, **options)
    assert (steered.text, steered.logprobs) == (plain.text, plain.logprobs)


def test_zeros_that_the_engine_adds_change_no_bit(each):
    engine, ids = each.engine, each.tokenizer.encode(PROMPT)
    zeros = np.zeros((1, each.config.n_embd), np.float32)
    with new_sequence(engine) as plain, new_sequence(engine) as steered:
        engine.edit_sequence(steered, [Edit("resid_pre", layer, zeros, add=True, every=True) for layer in range(4)])
        logits = engine.forward([plain, steered], [ids, ids], "all").reshape(2, len(ids), -1)
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_text_depends_neither_on_its_batch_nor_on_steered_neighbours(each, vector):
    engine, ids = each.engine, each.tokenizer.encode(PROMPT)
    edits = [Edit("resid_pre", 1, vector[None], add=True, every=True)]

    def alone(edits) -> np.ndarray:
        with new_sequence(engine) as sequence:
            engine.edit_sequence(sequence, edits)
            rows = [engine.forward([sequence], [[id]], "last") for id in ids]
        return np.concatenate(rows)

    with new_sequence(engine) as plain, new_sequence(engine) as steered:
        engine.edit_sequence(steered, edits)
        together = engine.forward([plain, steered], [ids, ids], "all").reshape(2, len(ids), -1)
    np.testing.assert_array_equal(together[0], alone([]))
    np.testing.assert_array_equal(together[1], alone(edits))


def test_samples_are_the_same_whatever_the_batch_size(each, vector):
    options = {"n": 5, "length": 8, "seed": 4, "add": {1: 0.5 * vector}}
    texts = [[c.text for c in each.generate(PROMPT, batch_size=size, **options)] for size in (1, 5)]
    assert texts[0] == texts[1]


def test_steered_text_is_drawn_from_steered_logits(tiny, vector):
    model = load(tiny.checkpoint.path, precision="float32")
    text = model.generate(PROMPT, length=6, temperature=0, add={1: vector})
    ids = [*model.tokenizer.encode(PROMPT), *text.tokens]
    assert model.steered({1: vector}).logits(ids[:-1])[-6:].argmax(axis=-1).tolist() == text.tokens


def test_a_steered_text_neither_uses_nor_leaves_kept_prompts(tiny, vector):
    model = load(tiny.checkpoint.path, precision="float32", prompt_cache=10_000_000)
    plain = model.generate(PROMPT, length=8, seed=1).text
    steered = model.generate(PROMPT, length=8, seed=1, add={0: 3 * vector}).text
    assert steered != plain
    assert model.generate(PROMPT, length=8, seed=1).text == plain
    assert (
        load(tiny.checkpoint.path, precision="float32").generate(PROMPT, length=8, seed=1, add={0: 3 * vector}).text
        == steered
    )


def test_a_fork_is_steered_like_its_parent(each, vector):
    engine, ids = each.engine, each.tokenizer.encode(PROMPT)
    with new_sequence(engine) as parent:
        engine.edit_sequence(parent, [Edit("resid_mid", 0, vector[None], add=True, every=True)])
        engine.forward([parent], [ids[:-1]], "none")
        fork = engine.fork_sequence(parent)
        logits = engine.forward([parent, fork], [ids[-1:], ids[-1:]], "last")
        engine.free_sequence(fork)
    np.testing.assert_array_equal(logits[0], logits[1])


def test_the_vector_is_the_difference_of_the_last_tokens(tiny):
    found = tiny.steering("I love", "I hate it", layer=2)
    expected = tiny.trace("I love").residual[2, -1] - tiny.trace("I hate it").residual[2, -1]
    np.testing.assert_array_equal(found, expected)
    assert tiny.steering("I love", "I hate", layer="blocks.2.hook_resid_post").shape == (tiny.config.n_embd,)


def save(path, **tensors) -> None:
    from gpt2lab.weights.precisions import PRECISIONS
    from gpt2lab.weights.safetensors_file import write_safetensors
    from gpt2lab.weights.writing import NewTensor

    with path.open("wb") as file:
        write_safetensors(
            file,
            [
                NewTensor(
                    name.replace("__", "."), value.shape, PRECISIONS["float32"], lambda value=value: value.reshape(-1)
                )
                for name, value in tensors.items()
            ],
        )


def test_rows_of_a_decoder_come_from_both_layouts(tiny, tmp_path):
    rows = np.random.default_rng(1).normal(size=(7, tiny.config.n_embd)).astype(np.float32)
    save(tmp_path / "saelens.safetensors", W_dec=rows, W_enc=rows.T.copy())
    save(tmp_path / "torch.safetensors", decoder__weight=rows.T.copy())
    for name in ("saelens", "torch"):
        found = tiny.decoder_rows(tmp_path / f"{name}.safetensors", [6, 0])
        np.testing.assert_array_equal(found, rows[[6, 0]])
    with pytest.raises(UsageError, match="no feature 7: features are 0 to 6"):
        tiny.decoder_rows(tmp_path / "torch.safetensors", [7])
    with pytest.raises(UsageError, match="has no tensor other: name the decoder's"):
        tiny.decoder_rows(tmp_path / "torch.safetensors", [0], tensor="other")


def test_a_decoder_of_another_width_is_refused(tiny, tmp_path):
    save(tmp_path / "other.safetensors", W_dec=np.zeros((4, 5), np.float32))
    with pytest.raises(UsageError, match=r"W_dec is \[4, 5\], but a decoder for this model"):
        tiny.decoder_rows(tmp_path / "other.safetensors", [0])


@pytest.mark.parametrize(
    "add, message",
    [
        ({3: [0.0] * 16}, "no layer 3: layers are 0 to 2"),
        ({0: [1.0, 2.0]}, r"the vector for 0 must be \[\d+\], got \[2\]"),
        ({0: "words"}, "the vector for 0 must be"),
        ({"blocks.0.hook_embed": [1.0]}, r"no hook 'blocks\.0\.hook_embed'"),
        ({True: [1.0]}, "a place is a layer's number"),
        ([1.0], "add must map layers to vectors, got list"),
    ],
)
def test_additions_that_do_not_fit_are_one_line(tiny, add, message):
    with pytest.raises(UsageError, match=message):
        tiny.generate(PROMPT, length=1, add=add)


def test_infinite_numbers_are_refused(tiny):
    with pytest.raises(UsageError, match="NaN or infinite"):
        tiny.steered({0: np.full(tiny.config.n_embd, np.inf)})

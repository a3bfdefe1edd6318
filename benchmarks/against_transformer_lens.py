"""Compare the activations of a random GPT-2 in gpt2lab with those in TransformerLens.

    pip install transformers "transformer-lens<3"
    python benchmarks/against_transformer_lens.py

Prints the largest difference of each kind of number: activations, the logit lens, direct logit attribution, logits of a
steered and of a patched model.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

import gpt2lab

N_LAYER, N_HEAD, N_EMBD, N_VOCAB, N_CTX = 3, 4, 48, 300, 64
HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
IDS = [(7 * i * i + 3 * i) % N_VOCAB for i in range(20)]


def random_gpt2() -> Any:
    """Return transformers' GPT-2 with random weights, biases and gains included."""
    torch.manual_seed(0)
    shape = {"vocab_size": N_VOCAB, "n_positions": N_CTX, "n_embd": N_EMBD, "n_head": N_HEAD, "n_layer": N_LAYER}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def hooked(model: Any) -> HookedTransformer:
    """Return the same model in TransformerLens, its weights as they are."""
    config = HookedTransformerConfig(
        n_layers=N_LAYER,
        d_model=N_EMBD,
        n_ctx=N_CTX,
        d_head=N_EMBD // N_HEAD,
        n_heads=N_HEAD,
        d_vocab=N_VOCAB,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
    )
    result = HookedTransformer(config)
    result.load_state_dict(convert_gpt2_weights(model, config), strict=False)
    return result.eval()


def compare(ours: gpt2lab.LanguageModel, theirs: HookedTransformer) -> dict[str, float]:
    """Return the largest difference of each kind of number."""
    worst: dict[str, float] = defaultdict(float)

    def note(name: str, mine: Any, other: torch.Tensor) -> None:
        worst[name] = max(worst[name], float(np.abs(np.asarray(mine) - other.numpy()).max()))

    trace = ours.trace(IDS)
    logits, cache = theirs.run_with_cache(torch.tensor([IDS]))
    note("logits", ours.logits(IDS), logits[0])
    for layer in range(N_LAYER):
        for hook in (*HOOKS, "attn.hook_q", "attn.hook_z"):
            note(hook, trace[f"blocks.{layer}.{hook}"], cache[f"blocks.{layer}.{hook}"][0])
        note("attention", trace.attention[layer], cache[f"blocks.{layer}.attn.hook_pattern"][0])
    stream = cache.accumulated_resid(layer=-1, incl_mid=False)[:, 0]
    lens = np.stack([trace.lens(position) for position in range(len(IDS))], axis=1)
    note("logit lens", lens, theirs.unembed(theirs.ln_final(stream)))

    token = int(logits[0, -1].argmax())
    direction = theirs.W_U[:, token] * theirs.ln_final.w / cache["ln_final.hook_scale"][0, -1]

    def attribution(terms: torch.Tensor) -> torch.Tensor:
        return (terms - terms.mean(-1, keepdim=True)) @ direction

    parts = trace.contributions(token)
    layers = np.stack([parts.attention, parts.mlp], axis=1).reshape(-1)
    terms = cache.decompose_resid(layer=-1)[:, 0, -1]
    note("contributions", [parts.embedding, parts.position, *layers], attribution(terms)[: 2 + 2 * N_LAYER])
    heads = attribution(cache.stack_head_results(layer=-1)[:, 0, -1])
    note("heads", parts.heads.reshape(-1), heads[: N_LAYER * N_HEAD])

    vector = np.random.default_rng(0).normal(size=N_EMBD).astype(np.float32)
    steer = [("blocks.1.hook_resid_pre", lambda x, hook: x + torch.tensor(vector))]
    steered = theirs.run_with_hooks(torch.tensor([IDS]), fwd_hooks=steer)
    note("steered", ours.steered({"blocks.1.hook_resid_pre": vector}).logits(IDS), steered[0])
    off = torch.ones(N_HEAD, 1)
    off[2] = 0
    patch = [("blocks.1.attn.hook_z", lambda z, hook: z * off), ("blocks.2.hook_mlp_out", lambda x, hook: x * 0)]
    patched = theirs.run_with_hooks(torch.tensor([IDS]), fwd_hooks=patch)
    note("patched", ours.patched(heads=[(1, 2)], mlps=[2]).logits(IDS), patched[0])
    return worst


@torch.no_grad()
def main() -> None:
    """Compare and print."""
    model = random_gpt2()
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder))
        for name, difference in compare(gpt2lab.load(folder), hooked(model)).items():
            print(f"{name:18} {difference:.1e}")


if __name__ == "__main__":
    main()

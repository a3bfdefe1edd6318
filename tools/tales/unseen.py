"""Give the tokens that never occur in the training text an embedding row that is practically never chosen.

    python tools/tales/unseen.py checkpoint/tales2 DATA/train.tokens tales.gguf

Updates push these tokens' rows away from every hidden state, but slowly, and each row by itself. The best row is the
same for all of them: the r that minimises the mean of log(1 + n · e^(h · r) / Z) over the hidden states h of the text,
where n tokens never occur and Z is the sum of e^logit over the others. That is a convex problem in one row, and L-BFGS
solves it. The hidden states come from windows spread over the training text. Every eighth window is left out of the
fit, to measure the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt2lab.data.open import open_documents
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.training.module import GPT2
from gpt2lab.weights.checkpoint import Checkpoint, tokenizer_of
from gpt2lab.weights.convert import convert
from gpt2lab.weights.find import open_checkpoint

Ids = NDArray[np.integer[Any]]

ROW = "wte.weight"
WINDOWS = 256
LEFT_OUT = 8  # every eighth window
SHRINK = 2e-6  # times the row's squared length: without it, the row would grow without end


def spread(tokens: Ids, n_ctx: int, count: int) -> Iterator[Ids]:
    """Yield ``count`` windows of at most ``n_ctx`` tokens, evenly spread over the text."""
    for start in np.linspace(0, max(0, len(tokens) - n_ctx), count).astype(int):
        yield tokens[start : start + n_ctx]


def states(model: GPT2, windows: Iterator[Ids], seen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each window's hidden states [n, n_embd] and log Z [n] over the tokens ``seen``, float64."""
    rows = model.output_matrix[seen].detach()
    for window in windows:
        with torch.no_grad():
            hidden = model.hidden(torch.from_numpy(window.astype(np.int64))[None])[0]
        yield hidden.double(), torch.logsumexp(hidden @ rows.T, dim=-1).double()


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the hidden states and log Z of several windows."""
    hidden, log_z = zip(*parts, strict=True)
    return torch.cat(hidden), torch.cat(log_z)


def fitted(hidden: Tensor, log_z: Tensor, n_unseen: int, row: Tensor) -> Tensor:
    """Return the best row [n_embd] for ``n_unseen`` tokens, beginning at ``row``."""
    found = row.double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nats(hidden, log_z, n_unseen, found).mean() + SHRINK * found.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return found.detach()


def nats(hidden: Tensor, log_z: Tensor, n_unseen: int, row: Tensor) -> Tensor:
    """Return -log of the probability left to the other tokens if ``n_unseen`` have this row, in nats [n]."""
    return torch.nn.functional.softplus(hidden @ row - log_z + float(np.log(n_unseen)))


def without_unseen(checkpoint: Checkpoint, tokenizer: Tokenizer, tokens: Ids, windows: int) -> Checkpoint:
    """Return the checkpoint with the fitted row for every token that does not occur, and print what that changes."""
    seen = np.union1d(np.unique(tokens), [tokenizer.end_of_text])
    unseen = np.setdiff1d(np.arange(checkpoint.config.n_vocab), seen)
    model = GPT2(checkpoint.config).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(each)) for name, each in checkpoint.tensors.items()})
    found = list(states(model, spread(tokens, checkpoint.config.n_ctx, windows), torch.from_numpy(seen)))
    kept, left_out = ([part for at, part in enumerate(found) if (at % LEFT_OUT == 0) is out] for out in (False, True))
    before = model.output_matrix[unseen].detach().double().mean(0)
    row = fitted(*joined(kept), len(unseen), before)
    print(f"{len(unseen)} tokens never occur; their row's length: {before.norm():.2f}, now {row.norm():.2f}")
    for name, part in (("fitted", kept), ("left out", left_out)):
        hidden, log_z = joined(part)
        shares = [(1 - torch.exp(-nats(hidden, log_z, len(unseen), each))).mean().item() for each in (before, row)]
        print(f"their probability, {name}, {len(log_z)} tokens: {shares[0]:.4%}, now {shares[1]:.4%}", flush=True)
    rows = np.array(checkpoint.tensors[ROW])
    rows[unseen] = row.float().numpy()
    return replace(checkpoint, tensors={**checkpoint.tensors, ROW: rows})


def main() -> None:
    """Read the options, and write the new file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("train", type=Path, help="the encoded training text")
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", default="q8_0")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.checkpoint)
    tokenizer = tokenizer_of(checkpoint) or Tokenizer.gpt2()
    tokens = np.asarray(open_documents([str(arguments.train)], tokenizer).tokens[:])
    convert(
        without_unseen(checkpoint, tokenizer, tokens, arguments.windows), arguments.out, precision=arguments.precision
    )


if __name__ == "__main__":
    main()

"""A first phase of training whose softmax covers only the dataset's own tokens, and the step to the whole vocabulary.

A small corpus uses half of GPT-2's tokens, and the output matrix is most of a small model's arithmetic, so the first
``narrow_steps`` updates leave the other tokens out. This module knows nothing of updates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpt2lab.data.windows import Windows
from gpt2lab.training.distributed import World
from gpt2lab.training.module import GPT2


def used_ids(windows: Windows, held_out: Windows | None) -> Tensor:
    """Return the ids that occur in the dataset or the held-out text, whose loss needs them; int64, ascending."""
    parts = [part.used_ids() for part in (windows, held_out) if part is not None]
    return torch.from_numpy(np.unique(np.concatenate(parts)))


@torch.no_grad()
def widen(model: GPT2, used: Tensor, world: World) -> None:
    """Give every token but the ``used`` ids a row of the output matrix to learn from.

    These rows start at the mean row, close to rare tokens. The remaining updates, over the whole vocabulary, teach the
    model that these tokens do not occur.
    """
    weight, unused = model.output_matrix, torch.ones(model.config.n_vocab, dtype=torch.bool)
    unused[used.cpu()] = False
    name = "wte.weight" if model.lm_head is None else "lm_head.weight"
    whole = world.full_tensors({name: weight})
    for rows in whole.values():  # in the main process
        rows[unused] = rows[~unused].mean(0)
    weight.copy_(world.local_tensors(model, whole)[name])

"""The mean loss of a text over several processes. This module knows nothing of models or of when to validate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpt2lab.data.windows import Batch
from gpt2lab.training.distributed import World
from gpt2lab.training.reporting import Reporter


def mean_loss(loss: Callable[[Batch], float], batches: Sequence[Batch], world: World, reporter: Reporter) -> float:
    """Return the mean over the trained targets of ``batches``, of which each process takes its share.

    ``loss`` returns a batch's sum.
    """
    total = targets = 0.0
    for first in range(0, len(batches), world.size):  # the same number of times in every process
        reporter.progress("Calculating validation loss...", first, len(batches))
        mine = first + world.rank < len(batches)
        batch = batches[first + world.rank if mine else first]
        value = loss(batch)
        total, targets = (total + value, targets + float(batch.trained.sum())) if mine else (total, targets)
    return world.sum(total) / max(1.0, world.sum(targets))

"""A run before its first update, as one object: the request, the starting model, and the processes.

Each step that prepares a run receives one :class:`Setup` instead of these objects separately. This module knows nothing
of the text, of saved states, or of what an update does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpt2lab.config import GPT2_N_VOCAB, ModelConfig, takes_gpt2_vocabulary
from gpt2lab.errors import UsageError
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.training.distributed import World
from gpt2lab.training.job import Job
from gpt2lab.training.settings import Done, Settings, resolved
from gpt2lab.weights import Checkpoint, open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of
from gpt2lab.weights.growing import grown
from gpt2lab.weights.tokenizer_copy import TokenizerCopy, gpt2_copy, tokenizer_copy


@dataclass(frozen=True)
class Source:
    """The model that training begins with; without a checkpoint its weights are random.

    ``updates`` is the number of updates behind it if it is from a run of the original code that training continues.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    checkpoint: Checkpoint | None = None
    updates: int | None = None

    @property
    def vocabulary(self) -> TokenizerCopy:
        """The tokenizer to save with the model."""
        return tokenizer_copy(self.checkpoint) if self.checkpoint else gpt2_copy(self.config.n_ctx)


def open_source(job: Job) -> Source:
    """Open the model that training begins with. Raises :class:`UsageError` if it has no tokenizer."""
    if job.config is not None:
        if not takes_gpt2_vocabulary(job.config.n_vocab):
            raise UsageError(
                f"a new model has GPT-2's vocabulary: n_vocab must be {GPT2_N_VOCAB}, not {job.config.n_vocab}"
            )
        return Source(job.config, Tokenizer.gpt2())
    checkpoint = open_checkpoint(job.model_name, activation=job.activation)
    checkpoint = grown(checkpoint, job.n_layer, job.n_ctx)
    tokenizer = tokenizer_of(checkpoint)
    if tokenizer is None:
        raise UsageError(
            f"{job.model_name} has no tokenizer, which training needs: put its vocabulary files beside the weights"
        )
    return Source(checkpoint.config, tokenizer, checkpoint)


@dataclass(frozen=True)
class Setup:
    """A run in one process: the requested ``job`` and ``settings``, the ``source``, and the ``world`` of processes.

    ``show`` receives the lines for the user.
    """

    job: Job
    settings: Settings
    source: Source
    world: World
    show: Callable[[str], object]

    def resolved(self, windows: int, done: Done) -> Setup:
        """Return a copy with resolved settings, now that the number of ``windows`` in an epoch is known."""
        config, from_scratch = self.source.config, self.source.checkpoint is None
        return replace(self, settings=resolved(self.settings, config, windows, from_scratch=from_scratch, done=done))

    def released(self) -> Setup:
        """Return a copy without the starting weights, whose files are then closed.

        Training may replace these files, which Windows forbids while they are open.
        """
        if self.source.checkpoint is None:
            return self
        checkpoint = replace(self.source.checkpoint, tensors={})
        return replace(self, source=replace(self.source, checkpoint=checkpoint))

    def say(self, line: str) -> None:
        """Show a line, in the main process alone."""
        if self.world.is_main:
            self.show(line)

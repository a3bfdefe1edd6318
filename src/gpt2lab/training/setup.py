"""A run before its first update, as one object: what is asked for, what it begins with, and who shares the work.

:class:`Setup` goes through every step of a start, so that none takes its parts one by one. Knows nothing of the text,
of saved states, or of what an update does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.model import tokenizer_of
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.training.distributed import World
from gpt2lab.training.job import Job
from gpt2lab.training.settings import Settings, resolved
from gpt2lab.weights import Checkpoint, open_checkpoint
from gpt2lab.weights.checkpoint import TokenizerFiles


@dataclass(frozen=True)
class Source:
    """What training begins with; without a checkpoint it is random."""

    config: ModelConfig
    tokenizer: Tokenizer
    checkpoint: Checkpoint | None = None

    @property
    def vocabulary(self) -> TokenizerFiles | None:
        """The checkpoint's own files; None = GPT-2's."""
        return self.checkpoint.tokenizer_files if self.checkpoint else None


def open_source(job: Job) -> Source:
    """The model that training begins with. Raises :class:`UsageError` if it has no tokenizer to read text with."""
    if job.config is not None:
        return Source(job.config, Tokenizer.gpt2())
    checkpoint = open_checkpoint(job.model_name)
    tokenizer = tokenizer_of(checkpoint)
    if tokenizer is None:
        raise UsageError(f"{job.model_name} has no tokenizer, which training needs: put its files beside the weights")
    return Source(checkpoint.config, tokenizer, checkpoint)


@dataclass(frozen=True)
class Setup:
    """A run in one process: ``job`` and ``settings`` as asked for, its ``source``, and the ``world`` of processes."""

    job: Job
    settings: Settings
    source: Source
    world: World

    def resolved(self, windows: int) -> Setup:
        """The same with settings without a None, now that the ``windows`` of an epoch are counted."""
        from_scratch = self.source.checkpoint is None
        return replace(self, settings=resolved(self.settings, self.source.config, windows, from_scratch=from_scratch))

    def say(self, line: str) -> None:
        """Print a line on standard output, in the main process alone."""
        if self.world.is_main:
            print_line(line)


def print_line(line: str) -> None:
    """On standard output, at once."""
    print(line, flush=True)

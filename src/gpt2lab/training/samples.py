"""Samples of a model in training, generated on the device that trains it, by the engine of that device.

The samples after an update equal those that ``gpt2lab generate`` writes on that device with that checkpoint and the
settings' seed and filters. This module knows nothing of how the model is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from gpt2lab.config import ModelConfig
from gpt2lab.engines.lazy import Engines
from gpt2lab.errors import CheckpointError, UsageError, first_line
from gpt2lab.generation.plan import space_at_end
from gpt2lab.generation.run import in_order
from gpt2lab.model import LanguageModel
from gpt2lab.system.atomic import write_file
from gpt2lab.system.marks import own_patterns, write_mark
from gpt2lab.training.run_folder import SAMPLE_FILES
from gpt2lab.training.setup import Setup
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes


class Samples:
    """A sampler that writes ``<folder>/samples-<step>`` in the original's form, and shows the last sample."""

    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        settings, config, tokenizer = setup.settings, setup.source.config, setup.source.tokenizer
        if not settings.sample_prompt and tokenizer.start is None:
            raise UsageError("this vocabulary has no <|endoftext|> to start samples with: give --sample_prompt")
        prompt = len(tokenizer.encode(settings.sample_prompt, special=setup.job.special))
        length = settings.sample_length or config.n_ctx
        if prompt + length > config.n_ctx:
            raise UsageError(
                f"sample_prompt ({prompt} tokens) and sample_length ({length}) together exceed the model's context "
                f"of {config.n_ctx}: shorten one"
            )
        self._config, self._tokenizer, self._settings = config, tokenizer, settings
        self._folder, self._say, self._failed = setup.job.samples, say, False
        self._special = setup.job.special
        self._device = setup.world.device.type
        if hint := space_at_end([settings.sample_prompt]):
            say(f"sample_prompt: {hint}")

    def __call__(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Draw samples from a model with these tensors and write them; a failure is said once and never raised."""
        try:
            self._write(step, tensors)
        except Exception as error:
            if not self._failed:
                self._say(f"warning: no samples after update {step} ({first_line(error)}): training continues without")
            self._failed = True

    def _write(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        engines = Engines(in_memory(self._config, tensors), device=self._device)
        model = LanguageModel(engines, self._tokenizer)
        settings = self._settings
        pieces = model.pieces(
            [settings.sample_prompt],
            n=settings.sample_num,
            length=settings.sample_length,
            top_k=settings.top_k,
            top_p=settings.top_p or 1.0,
            seed=settings.seed,
            special=self._special,
        )
        texts = [settings.sample_prompt + completion.text for completion in in_order(pieces)]
        blocks = [f"======== SAMPLE {number} ========\n{text}\n" for number, text in enumerate(texts, start=1)]
        path = self._folder / f"samples-{step}"
        try:
            write_file(path, "\n".join(blocks).encode(), sync=False)
            if not own_patterns(self._folder):
                write_mark(self._folder, SAMPLE_FILES)
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
        self._say(blocks[-1])


class _Arrays(Mapping[str, np.ndarray]):
    """A view of tensors as arrays that share their memory."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
        self._names, self._tensors = list(tensor_shapes(config)), tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self._tensors[name].detach().float().cpu().numpy())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def in_memory(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Return canonical tensors as a checkpoint, without a file or a copy."""
    return Checkpoint(config, _Arrays(config, tensors), None, "huggingface", "float32", Path("the model in training"))

"""Samples of a model in training, made by the engine that will make them of its checkpoint.

What is written after an update is what ``gpt2lab generate`` would write with that checkpoint, the settings' seed and
filters. Knows nothing of how the model is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from gpt2lab.config import ModelConfig
from gpt2lab.engines.lazy import Engines
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.model import LanguageModel
from gpt2lab.system.atomic import write_file
from gpt2lab.training.setup import Setup
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes


class Samples:
    """Writes ``<folder>/samples-<step>``, in the original's form, and says the last sample; called with the tensors."""

    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        settings, config, tokenizer = setup.settings, setup.source.config, setup.source.tokenizer
        if not settings.sample_prompt and tokenizer.end_of_text is None:
            raise UsageError("this vocabulary has no <|endoftext|> to begin samples with: give --sample_prompt")
        prompt = len(tokenizer.encode(settings.sample_prompt))
        length = settings.sample_length or config.n_ctx
        if prompt + length > config.n_ctx:
            raise UsageError(
                f"sample_prompt has {prompt} tokens, which with a sample_length of {length} are more than the "
                f"model's context of {config.n_ctx}"
            )
        self._config, self._tokenizer, self._settings = config, tokenizer, settings
        self._folder, self._say = setup.job.samples, say

    def __call__(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Draw and write."""
        model = LanguageModel(Engines(in_memory(self._config, tensors)), self._tokenizer)
        settings = self._settings
        completions = model.generate(
            [settings.sample_prompt],
            n=settings.sample_num,
            length=settings.sample_length,
            top_k=settings.top_k,
            top_p=settings.top_p or 1.0,
            seed=settings.seed,
        )
        texts = [settings.sample_prompt + completion.text for completion in completions]
        blocks = [f"======== SAMPLE {number} ========\n{text}\n" for number, text in enumerate(texts, start=1)]
        path = self._folder / f"samples-{step}"
        try:
            write_file(path, "\n".join(blocks).encode(), sync=False)
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None
        self._say(blocks[-1])


class _Arrays(Mapping[str, np.ndarray]):
    """Tensors as arrays that share their memory."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
        self._names, self._tensors = list(tensor_shapes(config)), tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self._tensors[name].detach().float().numpy())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def in_memory(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Canonical tensors as a checkpoint, without a file or a copy."""
    return Checkpoint(config, _Arrays(config, tensors), None, "huggingface", "float32", Path("the model in training"))

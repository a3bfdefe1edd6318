"""The models of a server, by the names that requests use, each with its own thread."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.engines.origin import origin_of
from gpt2lab.errors import UsageError
from gpt2lab.generation.kept import KeptPrompts
from gpt2lab.serving.errors import ApiError
from gpt2lab.serving.logit_reader import LogitReader
from gpt2lab.serving.worker import Worker
from gpt2lab.system.paths import printable
from gpt2lab.version import CONTRACT

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel
    from gpt2lab.serving.metrics import Metrics, ModelMetrics
    from gpt2lab.serving.settings import Settings
    from gpt2lab.tokenizer import Tokenizer


class ServedModel:
    """A model, its name, and the thread that runs it. Opens its engine.

    Raises :class:`~gpt2lab.errors.UsageError` for a model without a tokenizer.
    """

    def __init__(self, name: str, model: LanguageModel, settings: Settings, metrics: ModelMetrics) -> None:
        if model.tokenizer is None:
            raise UsageError(f"model {name!r} cannot be served: it has no tokenizer, so it cannot read or write text")
        self.name = name
        self.model = model
        self.tokenizer: Tokenizer = model.tokenizer
        self.metrics = metrics
        self.created = int(time.time())
        self.fingerprint = fingerprint(model)
        self.prompts = KeptPrompts(model.engine, settings.prompt_cache * 10**6)
        self.logits = LogitReader(model.engine, self.tokenizer, self.prompts)
        self.worker = Worker(
            model, batch_size=settings.max_batch, capacity=settings.capacity, metrics=metrics, prompts=self.prompts
        )
        self.worker.at_rest = model.engine.release_memory
        metrics.prompt_cache.set_function(lambda: self.prompts.held_bytes)

    def stop(self) -> None:
        """End the thread and free what is kept; may take as long as a step."""
        self.worker.stop()
        self.prompts.clear()

    def facts(self) -> dict[str, Any]:
        """Return the facts that the model's card adds to OpenAI's fields."""
        config = self.model.config
        return {
            "fingerprint": self.fingerprint,
            "contract": CONTRACT,
            "precision": self.model.precision,
            **{name: value for name, value in config.to_hparams().items() if name not in config.switches},
            "switches": config.switches,
            "n_parameters": config.n_params,
            "end_of_text": self.tokenizer.end_of_text,
        }


class ServedModels:
    """All models of a server; the first answers requests that name none."""

    def __init__(self, models: Sequence[tuple[str, LanguageModel]], settings: Settings, metrics: Metrics) -> None:
        names = [name for name, _ in models]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"two models would be served as {twice!r}: rename a folder or file")
        self._models = {name: ServedModel(name, model, settings, metrics.of_model(name)) for name, model in models}
        if len(models) == 1:  # the event loop computes briefly but often; another model's threads may fill a core
            models[0][1].engine.keep_to_cores()

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._models.values())

    def get(self, name: str | None) -> ServedModel:
        """Return the model that a request names. Raises :class:`ApiError` 404 if there is none."""
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            known = ", ".join(self._models)
            raise ApiError(
                404,
                f"there is no model {name[:200]!r} here: this server has {known}",
                param="model",
                code="model_not_found",
            )
        return self._models[name]


def name_of(name_or_path: str) -> str:
    """Return a model's name in requests: its name, or the last part of its path; never the whole path."""
    path = Path(name_or_path)
    return printable(path.name.removesuffix(".gguf").removesuffix(".pt") or path.absolute().name or name_or_path)


def fingerprint(model: LanguageModel) -> str:
    """Return a digest of everything that a text depends on besides its request.

    That is: the weights, the precisions, the contract's version, and the group of processors with the same bits.

    Raises :class:`~gpt2lab.errors.CheckpointError` if the weights cannot be read.
    """
    origin = origin_of(model.checkpoint, model.engine, model.precision, model.kv_precision)
    return "fp_" + hashlib.sha256(json.dumps(astuple(origin)).encode()).hexdigest()[:12]

"""GPT-2 on your own machine: run it, look inside it, fine-tune it, serve it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpt2lab.version import __version__

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.errors import Gpt2LabError
    from gpt2lab.generation.completion import Completion
    from gpt2lab.model import LanguageModel, load
    from gpt2lab.sampling.custom import CustomStage
    from gpt2lab.sampling.declaration import SamplingParams
    from gpt2lab.scoring import ScoreResult
    from gpt2lab.tokenizer import Tokenizer
    from gpt2lab.training.finetuning import finetune

__all__ = [
    "Completion",
    "CustomStage",
    "Gpt2LabError",
    "LanguageModel",
    "ModelConfig",
    "SamplingParams",
    "ScoreResult",
    "Tokenizer",
    "__version__",
    "finetune",
    "load",
]

_MODULES = {
    "Completion": "generation.completion",
    "CustomStage": "sampling.custom",
    "Gpt2LabError": "errors",
    "LanguageModel": "model",
    "ModelConfig": "config",
    "SamplingParams": "sampling",
    "ScoreResult": "scoring",
    "Tokenizer": "tokenizer",
    "finetune": "training.finetuning",
    "load": "model",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import gpt2lab`` costs next to nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""``--save_prompt`` and ``--load_prompt``: a long prompt's keys and values in a file, from one command to the next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2lab.engines.origin import origin_of
from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Prompt
from gpt2lab.generation.plan import context_tokens
from gpt2lab.generation.saved_prompts import load_prompt, save_prompt
from gpt2lab.model import LanguageModel


def check_saved(n_prompts: int, save: Path | None, is_job: bool) -> None:
    """Raise :class:`UsageError` if ``--save_prompt`` or ``--load_prompt`` conflicts with the other options."""
    if is_job:
        raise UsageError("--save_prompt and --load_prompt cannot be used with both --prompts and --out")
    if save and n_prompts != 1:
        raise UsageError(f"--save_prompt saves one prompt, got {n_prompts}")


def use_saved(
    model: LanguageModel, prompts: Sequence[Prompt], save: Path | None, load: Path | None, *, special: bool
) -> None:
    """Load one file and write the other, before ``model`` generates text; ``special`` is as in ``generate``."""
    origin = origin_of(model.checkpoint, model.engine, model.precision, model.kv_precision)
    if load:
        n_tokens = len(load_prompt(load, model.engine, model.sequences, origin))
        print(f"gpt2lab: {n_tokens} tokens of a prompt loaded from {load}", file=sys.stderr)
    if save:
        tokens = context_tokens(prompts[0], model.config, model.tokenizer, special=special)
        save_prompt(save, tokens, model.engine, model.sequences, origin)
        print(f"gpt2lab: {len(tokens)} tokens of the prompt saved to {save}", file=sys.stderr)

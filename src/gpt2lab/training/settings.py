"""Training settings: every number of a run except the model's shape, with its default, its limits and its help.

The command line takes its options from here, so this imports no torch. None stands for a value that :func:`resolved`
chooses once the model and the amount of text are known.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError

EPOCHS = 3  # by default
UNBOUNDED = 10**9  # the number of updates of a run that only its deadline ends
FEWEST_STEPS = 100  # for a run of unspecified length: a page of text is read more than three times
MOST_AT_ONCE = 65_536  # windows in a batch, batches in an update: they are gathered in memory
LORA_TARGETS = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc", "mlp.proj")


def _setting(group: str, default: Any, help: str, least: float | None = None, **limits: Any) -> Any:
    """Return a field with the help and the limits that the command line shows.

    ``least`` and ``most`` are the smallest and the largest allowed value; ``above`` and ``below`` are exclusive bounds.
    Infinity itself is allowed only with a ``most`` of infinity.
    """
    return field(default=default, metadata={"group": group, "help": help, "least": least, **limits})


_LENGTH, _BATCHES, _LEARNING = "Length", "Batches", "Learning"
_LORA, _MACHINE, _WATCHING, _SAVING = "LoRA", "Machine", "Validation and samples", "Saving"


@dataclass(frozen=True)
class Settings:
    """Training settings. An update (a step) averages over ``accumulate_gradients`` batches of ``batch_size`` windows.

    Raises :class:`UsageError` for a number out of range.
    """

    steps: int | None = _setting(_LENGTH, None, "Total number of updates.  [default: set by --epochs]", 1)
    epochs: float | None = _setting(
        _LENGTH,
        None,
        f"Passes through the text, in place of --steps.  [default: {EPOCHS}, and at least {FEWEST_STEPS} updates]",
        above=0,
    )
    stop_after: int = _setting(
        _LENGTH, 0, "Stop after N updates in total, even if the schedule is not finished; 0 never stops early.", 0
    )
    minutes: float = _setting(
        _LENGTH,
        0.0,
        "End after N minutes of training. The schedule then follows the clock, and --steps limits the updates. "
        "0 sets no deadline.",
        0,
    )
    patience: int = _setting(_LENGTH, 0, "Stop after N validations without improvement; 0 never stops early.", 0)

    batch_size: int = _setting(_BATCHES, 4, "Windows per batch; fewer windows take less memory.", 1, most=MOST_AT_ONCE)
    accumulate_gradients: int = _setting(_BATCHES, 2, "Batches per update.", 1, most=MOST_AT_ONCE)
    block_size: int | None = _setting(_BATCHES, None, "Tokens per window.  [default: the model's n_ctx]", 1)
    sampling: Literal["epoch", "uniform"] = _setting(
        _BATCHES, "epoch", "epoch: every token once an epoch; uniform: windows from anywhere, as in the original."
    )
    noise: float = _setting(
        _BATCHES,
        0.0,
        "With this probability, replace an input token by a random one; targets stay the same.",
        0,
        most=1,
    )
    seed: int = _setting(
        _BATCHES, 0, "Seed of the weights, dropout, noise, held-out part and order of the text.", 0, most=2**63 - 1
    )

    optimizer: Literal["adamw", "adam", "sgd", "muon"] = _setting(
        _LEARNING, "adamw", "adam has no weight decay; muon is for the matrices of the layers, with adamw for the rest."
    )
    adam_epsilon: Literal["corrected", "hat"] = _setting(
        _LEARNING,
        "corrected",
        "Add Adam's epsilon, 1e-8, after the bias of the mean square is corrected, as PyTorch does; or before it "
        "is (hat), as TensorFlow and the original do.",
    )
    learning_rate: float | None = _setting(
        _LEARNING,
        None,
        "Peak learning rate.  [default: 1e-4 x 768 / n_embd; ten times that with LoRA; 1e-3 from scratch]",
        above=0,
    )
    schedule: Literal["cosine", "linear", "constant", "stable-decay"] = _setting(
        _LEARNING,
        "cosine",
        "After the warm-up, cosine and linear fall to 0, constant stays at the peak, and stable-decay stays there and "
        "falls to 0 over the last --decay_steps updates.",
    )
    warmup_steps: int | None = _setting(
        _LEARNING, None, "Updates until the learning rate reaches its peak.  [default: a tenth of all, at most 100]", 0
    )
    decay_steps: int = _setting(_LEARNING, 0, "Updates at the end over which stable-decay falls.", 0)
    weight_decay: float = _setting(_LEARNING, 0.1, "Weight decay of matrices, not of biases or layer norms.", 0)
    clip: float = _setting(
        _LEARNING, 1.0, "Clip the gradient to this norm; inf disables clipping.", above=0, most=math.inf
    )
    average: float = _setting(
        _LEARNING,
        0.0,
        "Decay of an exponential moving average of the weights, such as 0.999. Validation, samples and the saved "
        "model use the average. 0 disables it.",
        0,
        below=1,
    )
    quantize: Literal["none", "int4"] = _setting(
        _LEARNING,
        "none",
        "int4: compute with matrices rounded as gpt2lab convert --precision int4 rounds them; updates change the "
        "exact weights.",
    )
    dropout: float = _setting(_LEARNING, 0.0, "Dropout probability of embeddings and layer outputs.", 0, below=1)
    only_train_transformer_layers: bool = _setting(_LEARNING, False, "Do not train the embeddings.")
    narrow_steps: int = _setting(
        _LEARNING,
        0,
        "For the first N updates, predict only tokens that occur in the text, which is cheaper; after that, give every "
        "other token the mean embedding of those that occur.",
        0,
    )

    lora: int = _setting(_LORA, 0, "Train adapters of this rank instead of the matrices; 0 trains all weights.", 0)
    lora_alpha: float | None = _setting(
        _LORA, None, "Adapters are scaled by alpha / rank.  [default: twice the rank]", above=0
    )
    lora_targets: str = _setting(
        _LORA, "all", f"Matrices with adapters, separated by commas: {', '.join(LORA_TARGETS)}; or all."
    )

    precision: Literal["auto", "float32", "bfloat16"] = _setting(
        _MACHINE, "auto", "Precision of the arithmetic; weights stay float32. auto measures which is faster here."
    )
    memory_saving_gradients: bool = _setting(
        _MACHINE, False, "Recompute layers in the backward pass: less memory, more time."
    )
    parallel: Literal["ddp", "fsdp"] = _setting(
        _MACHINE, "ddp", "With several processes: ddp copies the model to each, fsdp shards it over them."
    )

    val_every: int = _setting(_WATCHING, 50, "Validate every N updates and after the last; 0 never validates.", 0)
    val_batch_size: int = _setting(_WATCHING, 2, "Windows per validation batch.", 1, most=MOST_AT_ONCE)
    val_batch_count: int = _setting(
        _WATCHING, 40, "Validation batches, always the same ones, spread evenly over the text.", 1
    )
    sample_every: int = _setting(_WATCHING, 100, "Write samples every N updates; 0 never does.", 0)
    sample_length: int | None = _setting(_WATCHING, None, "Tokens per sample.  [default: 256, or n_ctx if smaller]", 1)
    sample_num: int = _setting(_WATCHING, 1, "Samples written each time.", 1)
    sample_prompt: str = _setting(_WATCHING, "", "Prompt of the samples; empty for none.")
    top_k: int = _setting(_WATCHING, 40, "For samples: keep the k likeliest tokens; 0 keeps all.", 0)
    top_p: float = _setting(
        _WATCHING,
        0.0,
        "For samples: keep the smallest set of likeliest tokens whose probabilities add up to at least p; 0 or 1 "
        "keeps all.",
        0,
        most=1,
    )

    save_every: int = _setting(_SAVING, 100, "Save every N updates and after the last; 0 saves only then.", 0)
    save_minutes: float = _setting(_SAVING, 10.0, "Also save every N minutes; 0 disables this.", 0)
    keep: int = _setting(_SAVING, 5, "Number of states to keep.", 1)
    keep_checkpoint_every_n_hours: float = _setting(
        _SAVING, 0.0, "Besides the last --keep states, keep one for every N hours of training; 0 keeps none.", 0
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, limits = getattr(self, each.name), each.metadata
            if isinstance(value, bool | str) or value is None:
                continue
            given = [key for key in _BOUNDS if limits.get(key) is not None]
            fits = all(_BOUNDS[key][1](value, limits[key]) for key in given)
            if not fits or not (abs(value) < math.inf or "most" in limits):
                raise UsageError(f"{each.name} must be {_range(limits)}, got {value}")
        self.targets()

    @property
    def windows_per_update(self) -> int:
        """The number of windows that an update averages over, in all processes together."""
        return self.batch_size * self.accumulate_gradients

    @property
    def validated_windows(self) -> int:
        """The most windows that a validation reads."""
        return self.val_batch_size * self.val_batch_count

    def targets(self) -> tuple[str, ...]:
        """Return the names in ``lora_targets``."""
        names = tuple(self.lora_targets.replace(",", " ").split())
        chosen = LORA_TARGETS if names == ("all",) else names
        for name in chosen:
            if name not in LORA_TARGETS:
                raise UsageError(f"lora_targets must be among {', '.join(LORA_TARGETS)}, or all, got {name!r}")
        return chosen


def _range(limits: Any) -> str:
    return " and ".join(f"{words} {limits[key]}" for key, (words, _) in _BOUNDS.items() if limits.get(key) is not None)


_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
    "most": ("at most", operator.le),
}


class Done(NamedTuple):
    """The part of a run that lies behind it: updates made, and windows trained on.

    ``begun_at`` counts the updates that the original code made before: the schedule begins after them.
    """

    step: int = 0
    position: int = 0
    begun_at: int = 0


NOTHING = Done()


def resolved(
    settings: Settings, config: ModelConfig, windows: int, *, from_scratch: bool, done: Done = NOTHING
) -> Settings:
    """Return ``settings`` with each None replaced, from the model's shape and the number of windows in an epoch.

    ``epochs`` becomes None, because ``steps`` replaces it. Epochs are counted in windows: ``steps`` is the number of
    updates ``done`` plus those that the remaining windows take. Raises :class:`UsageError` if both are given, if a
    window or a sample is longer than the model's context, or if ``narrow_steps``, ``quantize`` or ``average``
    conflicts with other settings.
    """
    if settings.steps and settings.epochs:
        raise UsageError("give --steps or --epochs, not both")
    left = max(0, (settings.epochs or EPOCHS) * windows - done.position)  # windows
    steps = settings.steps or done.step + math.ceil(left / settings.windows_per_update)
    if settings.minutes and settings.steps is None and settings.epochs is None:
        steps = UNBOUNDED
    elif settings.steps is None and settings.epochs is None:
        steps = max(steps, done.begun_at + FEWEST_STEPS)
    chosen: dict[str, Any] = {
        "steps": steps,
        "epochs": None,
        "block_size": settings.block_size or config.n_ctx,
        "warmup_steps": min(100, max(0, steps - done.begun_at) // 10)
        if (given := settings.warmup_steps) is None
        else given,
        "learning_rate": settings.learning_rate or default_learning_rate(settings, config, from_scratch),
        "lora_alpha": settings.lora_alpha or 2.0 * max(1, settings.lora),
        "sample_length": settings.sample_length or min(256, config.n_ctx),
    }
    for name in ("block_size", "sample_length"):
        if chosen[name] > config.n_ctx:
            raise UsageError(f"{name} must be at most the model's context of {config.n_ctx}, got {chosen[name]}")
    if settings.lora > config.n_embd:
        raise UsageError(f"lora must be at most the model's width of {config.n_embd}, got {settings.lora}")
    _check_narrow(settings, steps)
    _check_quantize(settings)
    return replace(settings, **chosen)


def _check_narrow(settings: Settings, steps: int) -> None:
    """Raise :class:`UsageError` if the embedding is not trained, or if no update over the whole vocabulary follows."""
    other = "lora" if settings.lora else "only_train_transformer_layers"
    if settings.narrow_steps and getattr(settings, other):
        raise UsageError(f"--narrow_steps trains the embedding, which --{other} freezes: give only one of them")
    if settings.narrow_steps >= steps:
        raise UsageError(f"--narrow_steps must be below the total of {steps} updates, got {settings.narrow_steps}")


def _check_quantize(settings: Settings) -> None:
    """Raise :class:`UsageError` if no process has whole matrices of weights, or if they are not trained."""
    if settings.quantize != "none" and settings.lora:
        raise UsageError("--quantize rounds the matrices, which --lora freezes: give only one of them")
    if settings.parallel == "fsdp" and (settings.quantize != "none" or settings.average):
        raise UsageError("--quantize and --average need whole weights in every process: give --parallel ddp")
    if settings.average and settings.lora:
        raise UsageError("--average averages the model's weights, which --lora freezes: give only one of them")


def default_learning_rate(settings: Settings, config: ModelConfig, from_scratch: bool) -> float:
    """Return a peak that suits the model's width: wider models need smaller steps (Yang et al. 2022)."""
    if from_scratch:
        return 1e-3
    return 1e-4 * 768 / config.n_embd * (10 if settings.lora else 1)


def learning_rate(step: int, settings: Settings, begun_at: int = 0) -> float:
    """Return the learning rate of update ``step`` (from 1).

    After a linear warm-up to the peak, ``schedule`` decides: a cosine or a straight line that would reach 0 one update
    after the last; the peak until the end; or the peak, then a straight line to 0 over the last ``decay_steps``. During
    the plateau of the latter, the number of steps may still change (Hu et al. 2024, MiniCPM): resume with another
    ``steps``. ``settings`` must be resolved. All of this begins after update ``begun_at``.
    """
    warm, peak, steps = settings.warmup_steps, settings.learning_rate, settings.steps
    assert warm is not None and peak is not None and steps is not None, "settings are not resolved"
    step, steps = step - begun_at, steps - begun_at
    if step <= warm:
        return peak * step / warm
    left = min(1.0, max(0, steps + 1 - step) / max(1, steps - warm))  # fraction of the decay that remains
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 - math.cos(math.pi * left))
    if settings.schedule == "linear":
        return peak * left
    if settings.schedule == "constant":
        return peak
    return peak * min(1.0, max(0, steps + 1 - step) / (settings.decay_steps + 1))

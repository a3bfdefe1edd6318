"""Perplexity of texts, and the benchmarks that GPT-2 was published with, on any engine.

:func:`evaluate` is the entry point. ``docs/evaluate.md`` defines the protocols. This package needs only NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt2lab.errors import UsageError
from gpt2lab.evaluating.corpora import TEXTS
from gpt2lab.evaluating.results import Evaluation, Figure
from gpt2lab.evaluating.run import Run

if TYPE_CHECKING:
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice
    from gpt2lab.evaluating.datasets import Say
    from gpt2lab.weights.fetch import Progress

TASKS = {
    "perplexity": "perplexity and bits per byte of texts of your own",
    "lambada": "the last word of a passage, in three protocols",
    "wikitext2": "perplexity of WikiText-2's test set",
    "wikitext103": "perplexity of WikiText-103's test set",
    "hellaswag": "which of four endings is likeliest",
    "cbt-cn": "Children's Book Test, a common noun is missing",
    "cbt-ne": "Children's Book Test, a name is missing",
}
"""Task → its description."""

__all__ = ["TASKS", "TEXTS", "Evaluation", "Figure", "Run", "evaluate"]


def evaluate(
    task: str,
    run: Run,
    *,
    data: str | None = None,
    stride: int | None = None,
    texts: Sequence[str] = (),
    reading: Reading | None = None,
    choice: Choice | None = None,
    say: Say = lambda line: None,
    progress: Callable[[str], Progress] | None = None,
) -> Evaluation:
    """Evaluate a model.

    Args:
        task: one of :data:`TASKS`.
        run: the model, and how much of the data to use.
        data: path or address of the data set's file, archive or folder; default: the cache, or a download.
        stride: the stride of the windows in which long texts are read; default both ``n_ctx`` and half of it.
        texts: some of :data:`TEXTS`; default: detokenised, and for WikiText also raw.
        reading: how to read the files of ``perplexity``.
        choice: the files to read in a folder or archive of ``perplexity``.
        say: receives a line for each file fetched.
        progress: receives the progress of downloads.

    Raises :class:`~gpt2lab.errors.UsageError` for options that the task lacks and for malformed data,
    :class:`~gpt2lab.errors.DownloadError` if the data cannot be fetched.
    """
    from gpt2lab.data.files import Reading
    from gpt2lab.data.finding import Choice, find_sources
    from gpt2lab.data.open import local_paths
    from gpt2lab.evaluating import corpora, tasks
    from gpt2lab.evaluating.datasets import find_data

    _check(task, run, data, stride, texts)
    if task == "perplexity":
        sources = find_sources(local_paths([str(data)], say), reading, choice, say)
        return corpora.perplexity(run, sources, stride, reading, say)
    if reading not in (None, Reading()) or choice not in (None, Choice()):
        raise UsageError(f"{task} has its own format: options such as --field and --include are for perplexity")
    source = find_data(task, data, say, progress)
    if task.startswith("wikitext"):
        found = corpora.wikitext(run, source, stride, texts or TEXTS[:2])
    elif task.startswith("cbt"):
        parts = [tasks.cbt(run, source, detokenized=text == TEXTS[0]) for text in texts or TEXTS[:1]]
        found = replace(parts[0], figures=[figure for part in parts for figure in part.figures])
    else:
        found = tasks.lambada(run, source) if task == "lambada" else tasks.hellaswag(run, source)
    return replace(found, task=task)


def _check(task: str, run: Run, data: str | None, stride: int | None, texts: Sequence[str]) -> None:
    """Refuse invalid arguments before anything is fetched or computed."""
    from gpt2lab.evaluating.texts import protocol_windows

    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}; tasks are {', '.join(TASKS)}")
    if run.limit is not None and run.limit < 1:
        raise UsageError(f"limit must be at least 1, got {run.limit}")
    whole_text = task == "perplexity" or task.startswith("wikitext")
    if stride is not None and not whole_text:
        raise UsageError(f"{task} takes no stride: its examples are separate")
    if whole_text:
        protocol_windows(stride, run.engine.config.n_ctx)
    known = {"wikitext2": TEXTS, "wikitext103": TEXTS, "cbt-cn": TEXTS[:2], "cbt-ne": TEXTS[:2]}.get(task, ())
    for text in texts:
        if text not in known:
            raise UsageError(f"{task} has no text {text!r}; it has {', '.join(known) or 'only one kind of text'}")
    if task == "perplexity" and data is None:
        raise UsageError("perplexity needs a text: give --data FILE")

"""The benchmarks: from a data set's records to items, and from scores to figures.

Each protocol is defined in ``docs/evaluate.md``; comments here say which choice a line makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from gpt2lab.errors import UsageError
from gpt2lab.evaluating import detokenizing
from gpt2lab.evaluating.batches import Item
from gpt2lab.evaluating.results import Evaluation, accuracy, perplexity
from gpt2lab.evaluating.run import Run
from gpt2lab.evaluating.sources import Source, numbered_lines, records, string, strings
from gpt2lab.evaluating.stop_words import stop_tokens

LAST_WORD, LAST_TOKEN, STOP_WORDS = "last word", "last token", "last word, stop-word filter"
COMPLETION = "completion"

BLANK = "XXXXX"
"""The Children's Book Test's placeholder for the word to choose."""

_QUOTES = str.maketrans({"“": '"', "”": '"'})


# ---- LAMBADA --------------------------------------------------------------------------------------------------------


def lambada(run: Run, source: Source) -> Evaluation:
    """Evaluate the prediction of a passage's last word, or last token, from everything before it."""
    passages = [text for _, text in islice(_passages(source), run.limit)]
    _refuse_empty(passages, source)
    counts: Counter[str] = Counter(examples=len(passages))
    word = list(run.score((_word_item(run, text) for text in passages), counts))
    banned = stop_tokens(run.tokenizer)
    prepared = list(run.score((_word_item(run, openai_prepared(text)) for text in passages), counts, banned))
    figures = [
        accuracy(LAST_WORD, [bool(scores.greedy.all()) for (scores,) in word]),
        perplexity(LAST_WORD, [-scores.total for (scores,) in word], "perplexity"),
        accuracy(LAST_TOKEN, [bool(scores.greedy[-1]) for (scores,) in prepared]),
        perplexity(LAST_TOKEN, [-float(scores.logprobs[-1]) for (scores,) in prepared], "perplexity"),
        accuracy(STOP_WORDS, [scores.allowed and bool(scores.greedy[1:].all()) for (scores,) in prepared]),
    ]
    return Evaluation("lambada", figures, counts)


def openai_prepared(text: str) -> str:
    """Return a passage as OpenAI is known to have fed it: one kind of double quote, after a line break."""
    return "\n" + text.translate(_QUOTES).replace("``", '"').replace("''", '"').strip()


def _passages(source: Source) -> Iterator[tuple[str, str]]:
    """Yield, for each passage, its place in words and the passage."""
    if source.kind in (".jsonl", ".json", ".parquet"):
        pairs: Iterable[tuple[str, str]] = ((where, string(record, "text", where)) for where, record in records(source))
    else:
        pairs = numbered_lines(source)
    for where, text in pairs:
        if len(text.split()) < 2:
            raise UsageError(f"{where} has fewer than two words, so it has no last word to predict")
        yield where, text


def _word_item(run: Run, text: str) -> Item:
    """Return an item that scores the last word, with the space before it, after the rest."""
    context, word = text.rsplit(None, 1)
    return Item(run.context(context), [run.ids(f" {word}")])


# ---- HellaSwag ------------------------------------------------------------------------------------------------------


def hellaswag(run: Run, source: Source) -> Evaluation:
    """Evaluate the choice of the likeliest ending, by the sum and by the mean of its tokens' log-probabilities."""
    examples = [_hellaswag_example(where, record) for where, record in islice(records(source), run.limit)]
    _refuse_empty(examples, source)
    counts: Counter[str] = Counter(examples=len(examples))
    items = (
        Item(run.context(context), [run.ids(f" {ending}") for ending in endings]) for context, endings, _ in examples
    )
    by_sum, by_mean = [], []
    for scores, (_, _, label) in zip(run.score(items, counts), examples, strict=True):
        by_sum.append(_best([each.total for each in scores]) == label)
        by_mean.append(_best([float(each.logprobs.mean()) for each in scores]) == label)
    return Evaluation(
        "hellaswag",
        [accuracy(COMPLETION, by_sum, "accuracy, sum"), accuracy(COMPLETION, by_mean, "accuracy, mean")],
        counts,
    )


def _hellaswag_example(where: str, record: dict[str, object]) -> tuple[str, list[str], int]:
    endings = strings(record, "endings", where)
    label = record.get("label")
    if isinstance(label, str) and label.isdecimal():  # the hub's copies spell it as text
        label = int(label)
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(endings):
        raise UsageError(f"{where}: 'label' must be from 0 to {len(endings) - 1}, got {label!r:.60}")
    return string(record, "ctx", where), endings, label


# ---- Children's Book Test -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloze:
    """A question of the Children's Book Test."""

    text: str
    """Twenty sentences and the question, with :data:`BLANK` in it."""
    answer: str
    choices: list[str]


def cbt(run: Run, source: Source, *, detokenized: bool = True) -> Evaluation:
    """Evaluate the choice of the word that makes the question's sentence likeliest, from that word to its end."""
    questions = list(islice(_clozes(source), run.limit))
    _refuse_empty(questions, source)
    counts: Counter[str] = Counter(examples=len(questions))
    counts["answers that are none of the choices"] = sum(each.answer not in each.choices for each in questions)
    hits = []
    for scores, question in zip(
        run.score((_cloze_item(run, question, detokenized) for question in questions), counts), questions, strict=True
    ):
        hits.append(question.choices[_best([each.total for each in scores])] == question.answer)
    return Evaluation("cbt", [accuracy("detokenised" if detokenized else "raw", hits)], counts)


def _cloze_item(run: Run, question: Cloze, detokenized: bool) -> Item:
    text = detokenizing.treebank(question.text) if detokenized else question.text
    before, _, rest = text.rpartition(BLANK)
    space = " " if before.endswith(" ") else ""
    endings = [run.ids(space + choice + rest) for choice in question.choices]
    return Item(run.context(before.removesuffix(" ")), endings)


def _clozes(source: Source) -> Iterator[Cloze]:
    if source.kind in (".parquet", ".jsonl", ".json"):
        for where, record in records(source):
            sentences = [*strings(record, "sentences", where), string(record, "question", where)]
            yield _cloze(where, sentences, string(record, "answer", where), strings(record, "options", where))
        return
    sentences = []
    for where, line in numbered_lines(source):
        number, _, rest = line.partition(" ")
        if number != str(len(sentences) + 1):
            raise UsageError(f"{where} must begin with the number {len(sentences) + 1}, got {line!r:.40}")
        if number != "21":
            sentences.append(rest)
            continue
        fields = rest.split("\t")
        if len(fields) != 4:
            raise UsageError(f"{where}: expected question, answer and choices between tabs, got {len(fields)} fields")
        yield _cloze(where, [*sentences, fields[0]], fields[1], fields[3].split("|"))
        sentences = []
    if sentences:
        raise UsageError(f"{source.name} ends in the middle of an example, after line {len(sentences)}")


def _cloze(where: str, sentences: list[str], answer: str, choices: list[str]) -> Cloze:
    if BLANK not in sentences[-1]:
        raise UsageError(f"{where}: the question has no {BLANK}, got {sentences[-1]!r:.60}")
    choices = [choice for choice in choices if choice]
    if len(choices) < 2:
        raise UsageError(f"{where}: expected at least two choices, got {choices}")
    return Cloze(" ".join(sentences), answer, choices)


def _best(totals: list[float]) -> int:
    """Return the index of the largest; ties go to the first."""
    return max(range(len(totals)), key=totals.__getitem__)


def _refuse_empty(examples: Sequence[object], source: Source) -> None:
    if not examples:
        raise UsageError(f"{source.name} has no examples")

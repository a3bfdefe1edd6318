"""The public model object: it generates, scores and shows next-token distributions.

Text goes in and comes out here; :mod:`gpt2lab.generation` plans and runs, :mod:`gpt2lab.scoring` reads texts, and an
engine computes. This module knows no checkpoint format and no device.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal, cast, overload

from gpt2lab.engines.lazy import Engines
from gpt2lab.engines.precision import checked_device
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError
from gpt2lab.generation.completion import Completion, Piece, Prompt
from gpt2lab.generation.options import (
    GenerationArguments,
    Options,
    SamplingArguments,
    SteeredArguments,
    check_names,
    documented,
    make_options,
    sampling_params,
    whole,
)
from gpt2lab.generation.plan import (
    Plan,
    context_tokens,
    is_prompt,
    make_plans,
    opened_tokens,
    prompt_tokens,
    warn_of_space,
)
from gpt2lab.generation.run import check_errors, generate_pieces, in_order, texts_of
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.sequences import Sequences
from gpt2lab.generation.speculation import Speculation, check_draft
from gpt2lab.generation.text_stream import TextStream
from gpt2lab.inside.methods import Inside
from gpt2lab.weights.checkpoint import tokenizer_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Unpack

    from gpt2lab.distribution import NextToken
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.scoring import ScoreResult
    from gpt2lab.tokenizer import Tokenizer
    from gpt2lab.weights.checkpoint import Checkpoint


def load(
    name_or_path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    kv_precision: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    draft: str | os.PathLike[str] | LanguageModel | None = None,
    prompt_cache: int = 0,
    activation: str | None = None,
) -> LanguageModel:
    """Open a model.

    Weights are read when they are first needed, and their packed form is cached: see ``docs/cache.md``.

    Args:
        name_or_path: a path, a folder under ``./models``, ``"tales"``, a released size such as ``"124M"``, or a model
            on the Hugging Face hub: ``"USER/MODEL"``, ``"USER/MODEL@REVISION"``.
        precision: precision of the weights, for everything: ``"float32"``, ``"bfloat16"``, ``"int8"`` or ``"int4"``; on
            a GPU, ``"float16"`` in place of int4. Default: float32 for :meth:`~LanguageModel.logits`,
            :meth:`~LanguageModel.score` and :meth:`~LanguageModel.next_token`, and for generation on a GPU; int8 for
            generation on a CPU.
        kv_precision: precision of the KV cache: ``"float32"`` (default with float32 weights), ``"float16"`` (default
            with other weights on a GPU), ``"bfloat16"`` (default with bfloat16 weights on a CPU, and only with them) or
            ``"int8"`` (default with other weights on a CPU). A GPU has only float32 and float16.
        threads: number of worker threads; default: the number of physical cores.
        device: ``"cpu"``; a GPU (``"cuda"`` or ``"mps"``), for which PyTorch must be installed; ``"auto"`` for a GPU if
            there is one, otherwise the CPU; ``"reference"`` for NumPy (float32, slow, for comparison); ``"torch-cpu"``
            for a GPU's code on the CPU (slow, for tests).
        draft: a smaller model with the same vocabulary that guesses tokens ahead: changes only the speed. A name, a
            path, or a loaded model, which then shares its engine.
        prompt_cache: bytes for keys and values of earlier texts, for ten minutes after their last use. If a prompt
            begins like one of them, only the rest is computed; completions stay the same. Default: none are kept.
        activation: for files that do not record it (nanoGPT, GGUF): ``"gelu_new"``, ``"gelu"``, ``"relu"`` or
            ``"silu"``. Default: the one that the file's program uses today; a note says so.

    Raises:
        UsageError: if a precision or device is not available, ``threads`` is below 1, ``prompt_cache`` below 0, or the
            draft model has another vocabulary.
        CheckpointError, DownloadError: if there is no such model or it cannot be read.
    """
    device = checked_device(device, precision, kv_precision)
    threads = threads if threads is None else whole("threads", threads, least=1)
    prompt_cache = whole("prompt_cache", prompt_cache, least=0)
    from gpt2lab.weights import open_checkpoint

    def engines_of(checkpoint: Checkpoint) -> Engines:
        return Engines(checkpoint, device=device, threads=threads, precision=precision, kv_precision=kv_precision)

    checkpoint = open_checkpoint(name_or_path, activation=activation)
    guesser = None
    if isinstance(draft, LanguageModel):
        guesser = draft._engines
    elif draft is not None:
        guesser = engines_of(open_checkpoint(draft))
    return LanguageModel(engines_of(checkpoint), tokenizer_of(checkpoint), guesser, prompt_cache)


class LanguageModel(Inside):
    """A GPT-2 in its engines, with its tokenizer; made by :func:`load`.

    Attributes:
        config: the model's shape.
        precision: precision of the weights used for generation.
        exact_precision: precision of the weights behind :meth:`logits`, :meth:`score` and :meth:`next_token`.
        tokenizer: the tokenizer; None if none fits the vocabulary: prompts and completions are then token ids.
        eos: the ids that end a text.

    Every prompt may be text or a sequence of token ids. An empty prompt stands for the start of a text: the model is
    fed ``<|endoftext|>``, which counts neither as prompt nor as text. ``special`` is everywhere as in :meth:`generate`.
    """

    def __init__(
        self, engines: Engines, tokenizer: Tokenizer | None, draft: Engines | None = None, prompt_cache: int = 0
    ) -> None:
        if draft:
            check_draft(draft.config, engines.config)
        self.config = engines.config
        self.precision = engines.precision
        self.exact_precision = engines.exact_precision
        self.tokenizer = tokenizer
        self.eos = tokenizer.eos if tokenizer else engines.checkpoint.special.eos or ()
        self._engines = engines
        self._draft = draft
        self._prompt_cache = prompt_cache
        self._kept: list[Sequences] = []
        known = tokenizer.n_vocab if tokenizer else self.config.n_vocab
        self._banned = {id: float("-inf") for id in range(known, self.config.n_vocab)}  # ids without a text

    def __repr__(self) -> str:
        size = f"{self.config.n_params / 1e6:,.1f}M parameters, n_ctx {self.config.n_ctx}"
        exact = "" if self.exact_precision == self.precision else f", scores in {self.exact_precision}"
        held = f"{self.precision}, keys and values in {self.kv_precision}{exact}"
        path, device = str(self._engines.checkpoint.path), self.device
        draft = f", draft {str(self._draft.checkpoint.path)!r}" if self._draft else ""
        return f"<LanguageModel {path!r}: {size}, {held}, device {device}{draft}>"

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint this model was opened from."""
        return self._engines.checkpoint

    @property
    def device(self) -> str:
        """The device that computes; never ``auto``."""
        return self._engines.device

    @property
    def kv_precision(self) -> str:
        """The precision of the KV cache used for generation."""
        return self._engines.kv_precision

    @property
    def engine(self) -> Engine:
        """The engine that generates text; opened on first use."""
        return self._engines.generating

    @property
    def exact_engine(self) -> Engine:
        """The engine behind :meth:`logits`, :meth:`score` and :meth:`next_token`; opened on first use."""
        return self._engines.exact

    @overload
    def generate(self, prompt: str = "", *, n: Literal[1] = 1, **options: Unpack[SteeredArguments]) -> Completion: ...
    @overload
    def generate(self, prompt: list[str], *, n: int = 1, **options: Unpack[SteeredArguments]) -> list[Completion]: ...
    @overload
    def generate(
        self, prompt: Prompt | Sequence[Prompt], *, n: int = 1, **options: Unpack[SteeredArguments]
    ) -> Completion | list[Completion]: ...
    @documented(SteeredArguments)
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt] = "",
        *,
        n: int = 1,
        **options: Unpack[SteeredArguments],
    ) -> Completion | list[Completion]:
        """Complete one prompt or several, ``n`` times each.

        Args:
            prompt: text, token ids, or a list of prompts.
            n: number of samples of each prompt.
            length: the most tokens to draw. Default: n_ctx for an empty prompt, otherwise n_ctx // 2 or what the
                context has room for.
            sampling: each parameter of :class:`~gpt2lab.SamplingParams`, by its name.
            logit_bias: token id → number added to its logit.
            stages: your own sampling stages: functions of logits and tokens, or :class:`~gpt2lab.CustomStage`.
            seed: 0 … 2^63 - 1; None draws one. Sample i of prompt p uses the seed's random stream p·n + i.
            stop: one or more strings that end a sample and are left out of its text.
            stop_token_ids: ids that end a sample, besides the model's own.
            min_tokens: number of tokens before which nothing ends a sample.
            ignore_eos: treat ``<|endoftext|>``, and every other id that ends a text, as a token like any other.
            special: read special tokens in prompts, such as ``<|endoftext|>``, as their ids; by default they are text.
            add_special_tokens: add the ids that the model's tokenizer puts around prompts; GPT-2's puts none.
            skip_special_tokens: leave special tokens out of the text.
            overflow: ``"slide"`` lets text outgrow the context: whenever it is full, its older half is dropped.
            batch_size: the most samples that run together; changes only the speed.
            logprobs: whether completions carry the log-probabilities of their tokens.
            top_logprobs: the number of likeliest ids to carry for each token, with their log-probabilities.
            speculation: ``"auto"`` guesses tokens ahead where that pays; changes only the speed.
            add: vectors to add to the residual stream, as in :meth:`steered`.

        Returns one :class:`Completion` for one prompt with n = 1, otherwise a list that begins with all samples of
        the first prompt. Raises :class:`~gpt2lab.errors.SamplingError`, :class:`~gpt2lab.errors.ContextError` or
        :class:`~gpt2lab.errors.UsageError` before any work is done. An error in one of ``stages`` ends only the
        sample it occurs in, see :attr:`Completion.error`; if every sample ends so, the first error is raised. A prompt
        that ends in a space gets a warning, because it rarely continues well.
        """
        check_names(options, SteeredArguments, "LanguageModel.generate() got an ")
        single = is_prompt(prompt)
        pieces = self.pieces(prompt, n=whole("n", n, least=1), **options)
        warn_of_space(prompt)
        completions = list(in_order(pieces))
        check_errors(completions)
        return completions[0] if single and n == 1 else completions

    @documented(SteeredArguments)
    def stream(self, prompt: Prompt = "", **options: Unpack[SteeredArguments]) -> TextStream:
        """Yield the text of one completion as it is generated. Its pieces are final: joined, they are its ``text``.

        A notebook shows the text as it arrives if a cell ends with this call.
        ``options`` are those of :meth:`generate`. Stopping early (``break``, ``close()``) frees everything it held.
        """
        if not is_prompt(prompt):
            raise UsageError(f"stream() takes one prompt, got {len(prompt)}: use pieces() for several")
        pieces = self.pieces(prompt, n=1, **options)
        warn_of_space(prompt)
        return TextStream(texts_of(pieces), prompt)

    @documented(SteeredArguments)
    def pieces(
        self,
        prompt: Prompt | Sequence[Prompt] = "",
        *,
        n: int | None = 1,
        first_index: int = 0,
        **options: Unpack[SteeredArguments],
    ) -> Generator[Piece, None, None]:
        """Generate as :meth:`generate` does, but yield token by token: for progress, or to stream several samples.

        ``n=None`` goes on until it is closed (one prompt only). Samples are numbered from ``first_index``, which is
        also the first random stream used. The call itself raises errors, not the first step.
        """
        if (add := options.pop("add", None)) is not None:
            return self.steered(add).pieces(prompt, n=n, first_index=first_index, **options)
        prompts = [prompt] if is_prompt(prompt) else cast("Sequence[Prompt]", prompt)
        if n is None and len(prompts) != 1:
            raise UsageError(f"endless samples (n=None) need exactly one prompt, got {len(prompts)}")
        if n is not None and whole("first_index", first_index, least=0) + whole("n", n, least=1) * len(prompts) > 2**64:
            raise UsageError(f"sample numbers must be below 2^64: {n} samples from number {first_index} are too many")
        checked, plans = self.plan(prompts, **cast("GenerationArguments", options))
        engine = self._engines.generating
        draft = self._draft.generating if self._draft and checked.speculation == "auto" else None
        return generate_pieces(engine, self.tokenizer, plans, n, checked, first_index, draft, self.sequences)

    def plan(self, prompts: Sequence[Prompt], **options: Unpack[GenerationArguments]) -> tuple[Options, list[Plan]]:
        """Check the options and encode the prompts, for callers with their own :meth:`scheduler`, such as the server.

        Raises the errors of :meth:`generate`.
        """
        options["logit_bias"] = {**(options.get("logit_bias") or {}), **self._banned}
        checked = make_options(**options)
        self._engines.open_ahead()  # while prompts are encoded
        return checked, make_plans(prompts, checked, self.config, self.tokenizer, self.eos)

    def scheduler(
        self,
        *,
        batch_size: int | None = None,
        speculation: Literal["auto", "off"] = "auto",
        sequences: Sequences | None = None,
    ) -> Scheduler:
        """Return a scheduler on the generating engine, for the caller's own requests; close it to free its memory.

        ``sequences`` may keep prompts; default: the model's own.
        """
        engine = self._engines.generating
        draft = self._draft.generating if self._draft and speculation == "auto" else None
        guessing = Speculation(self.config, draft) if speculation == "auto" else None
        return Scheduler(engine, batch_size=batch_size, speculation=guessing, sequences=sequences or self.sequences)

    @property
    def sequences(self) -> Sequences:
        """The sequences of the generating engine; with a prompt cache, they begin with what it keeps."""
        if not self._prompt_cache:
            return Sequences(self._engines.generating)
        if not self._kept:
            from gpt2lab.generation.kept import KeptPrompts  # imported only here: most starts keep nothing

            self._kept.append(KeptPrompts(self._engines.generating, self._prompt_cache))
        return self._kept[0]  # if several threads come here at once, all use the first one's

    def logits(self, prompt: Prompt, *, special: bool = False) -> npt.NDArray[np.float32]:
        """Return the logits after every token of ``prompt``: float32 [tokens, n_vocab]; one row for an empty prompt.

        Raises :class:`~gpt2lab.errors.ContextError` if the prompt has more than n_ctx tokens.
        """
        tokens = context_tokens(prompt, self.config, self.tokenizer, special=special)
        with new_sequence(self._engines.exact) as sequence:
            return self._engines.exact.forward([sequence], [tokens], "all")

    def score(self, text: Prompt, *, stride: int | None = None, special: bool = False) -> ScoreResult:
        """Score how probable ``text``, of any length, is, token by token.

        The first token is conditioned on ``<|endoftext|>``; a model without one scores from the second token on.
        Texts longer than n_ctx are read in windows that advance by ``stride`` (default n_ctx // 2) tokens.
        """
        from gpt2lab.distribution import token_texts
        from gpt2lab.scoring import ScoreResult, check_stride, token_logprobs

        stride = check_stride(stride, self.config.n_ctx)
        tokens = opened_tokens(text, self.config, self.tokenizer, special=special)
        scored = tokens[1:]
        n_bytes = sum(len(self.tokenizer.token_bytes(id)) for id in scored) if self.tokenizer else None
        logprobs = token_logprobs(self._engines.exact, tokens, stride) if scored else []
        return ScoreResult(scored, logprobs, n_bytes, token_texts(scored, self.tokenizer))

    @documented(SamplingArguments)
    def next_token(
        self, prompt: Prompt, *, top: int = 10, special: bool = False, **sampling: Unpack[SamplingArguments]
    ) -> NextToken:
        """Return the distribution of the token after ``prompt``, with the ``top`` likeliest tokens of each stage.

        ``sampling`` are the parameters of :class:`~gpt2lab.SamplingParams` and ``stages``, as in :meth:`generate`.
        """
        from gpt2lab.distribution import next_token
        from gpt2lab.sampling.custom import custom_stages

        top = whole("top", top, least=1)
        check_names(sampling, SamplingArguments)
        sampling["logit_bias"] = {**(sampling.get("logit_bias") or {}), **self._banned}
        params, custom = sampling_params(sampling), custom_stages(sampling.get("stages", ()))
        tokens = prompt_tokens(prompt, self.config, self.tokenizer, special=special)
        context = context_tokens(prompt, self.config, self.tokenizer, special=special)
        with new_sequence(self._engines.exact) as sequence:
            logits = self._engines.exact.forward([sequence], [context], "last")[0]
        return next_token(tokens, logits, params, tokens, self.tokenizer, top, custom)

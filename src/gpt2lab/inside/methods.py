"""The methods of :class:`~gpt2lab.LanguageModel` that read and change its activations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, TypeVar, cast

from gpt2lab.errors import UsageError
from gpt2lab.generation.options import whole
from gpt2lab.generation.plan import context_tokens, is_prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.inside.embedding import Pooling
    from gpt2lab.inside.neighbours import Neighbour
    from gpt2lab.inside.patching import Method
    from gpt2lab.inside.steering import Additions
    from gpt2lab.inside.tracing import Trace
    from gpt2lab.tokenizer import Tokenizer

Self = TypeVar("Self", bound="Inside")


class Inside:
    """A model whose activations can be read and changed. Layers, heads and positions are counted from 0."""

    config: ModelConfig
    tokenizer: Tokenizer | None
    _engines: Engines
    _prompt_cache: int

    def trace(self, prompt: Prompt, *, last: int | None = None, special: bool = False) -> Trace:
        """Run ``prompt``, of up to 512 tokens, and return its activations.

        They are the residual stream, attention, the logit lens, and each part's contribution to a token's logit, at the
        ``last`` positions (default: all), from the engine behind :meth:`logits`.
        Raises :class:`~gpt2lab.errors.UsageError` for a longer prompt.
        """
        from gpt2lab.inside.tracing import trace

        last = last if last is None else whole("last", last, least=1)
        return trace(self._engines.exact, self._engines.checkpoint, self._ids(prompt, special), last)

    def patched(
        self: Self,
        *,
        heads: Sequence[tuple[int, int]] = (),
        mlps: Sequence[int] = (),
        method: Method | None = None,
        source: Prompt | None = None,
        positions: Sequence[int] | None = None,
        special: bool = False,
    ) -> Self:
        """Return this model with some heads and MLPs switched off or replaced, in everything that it computes.

        Args:
            heads: pairs ``(layer, head)``; a head's activation is the values it mixed, ``z``.
            mlps: layers; an MLP's activation is its output.
            method: ``"zero"`` (default without ``source``), ``"copy"`` (default with it): the activation at the same
                position of ``source``, or ``"mean"``: its mean over all positions of ``source``.
            source: another text, or its ids.
            positions: the positions to change. Default: all, drawn tokens included; for ``"copy"`` those of
                ``source``.
            special: as in :meth:`generate`, for ``source``.

        A copy from the text itself changes no bit. The copy of the model keeps no prompts.
        Raises :class:`~gpt2lab.errors.UsageError` for a head, layer or position that the model lacks.
        """
        from gpt2lab.inside.patching import Patch, check_patch, patch_edits

        patch = Patch(
            heads=tuple(
                (whole("layer", layer, least=0), whole("head", head, least=0)) for layer, head in _pairs(heads)
            ),
            mlps=_numbers("mlps", "layer", mlps),
            method=method or ("zero" if source is None else "copy"),
            source=() if source is None else self._ids(source, special),
            positions=None if positions is None else _numbers("positions", "position", positions),
        )
        check_patch(patch, self.config)
        return self._edited(lambda engine: patch_edits(engine, patch))

    def steered(self: Self, add: Additions) -> Self:
        """Return this model with vectors added to its residual stream, in everything that it computes.

        ``add`` maps a layer, or a hook's name in TransformerLens such as ``"blocks.6.hook_resid_pre"``, to the vector
        ``[n_embd]`` that is added there at every position. A vector of zeros changes no bit.
        Raises :class:`~gpt2lab.errors.UsageError` for another place or shape.
        """
        from gpt2lab.inside.steering import steering_edits

        edits = steering_edits(add, self.config)
        return self._edited(lambda engine: edits)

    def steering(self, positive: Prompt, negative: Prompt, *, layer: int | str) -> npt.NDArray[np.float32]:
        """Return the vector ``[n_embd]`` from ``negative`` to ``positive`` at ``layer``, to be multiplied and added.

        It is the difference of their activations at their last tokens, from the engine behind :meth:`logits`. ``layer``
        is as in :meth:`steered`.
        """
        from gpt2lab.inside.steering import difference

        ids = [self._ids(prompt, False) for prompt in (positive, negative)]
        return difference(self._engines.exact, ids[0], ids[1], layer)

    def decoder_rows(
        self, path: str | os.PathLike[str], features: Sequence[int], *, tensor: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return rows ``[len(features), n_embd]`` of a sparse autoencoder's decoder in a safetensors file, to be added.

        ``tensor`` is the decoder's name; default: ``W_dec`` ``[n_features, n_embd]``, or ``decoder.weight``
        ``[n_embd, n_features]``.
        """
        from gpt2lab.inside.steering import decoder_rows

        return decoder_rows(path, _numbers("features", "feature", features), self.config.n_embd, tensor)

    def embed(
        self, text: Prompt | Sequence[Prompt], *, pooling: Pooling = "mean", special: bool = False
    ) -> npt.NDArray[np.float32]:
        """Return the embedding ``[n_embd]`` of a text, or ``[n, n_embd]`` of several, float32.

        It is the hidden state after the final layer norm: its mean over the tokens, or with ``pooling="last"`` that of
        the last token. It depends on no other text.
        Raises :class:`~gpt2lab.errors.ContextError` for a text of more than n_ctx tokens.
        """
        import numpy as np

        from gpt2lab.inside.embedding import check_pooling, embed

        check_pooling(pooling)
        texts = [text] if is_prompt(text) else cast("Sequence[Prompt]", text)
        engine, checkpoint = self._engines.exact, self._engines.checkpoint
        rows = [embed(engine, checkpoint, self._ids(each, special), pooling) for each in texts]
        if is_prompt(text):
            return rows[0]
        return np.stack(rows) if rows else np.empty((0, self.config.n_embd), np.float32)

    def nearest_tokens(self, to: int | npt.NDArray[np.float32], *, top: int = 10) -> list[Neighbour]:
        """Return the ``top`` tokens whose embeddings are nearest, by cosine, to a token's or to a vector ``[n_embd]``.

        A token is given as its id, and is not among them.
        """
        import numpy as np

        from gpt2lab.inside.neighbours import nearest

        engine, top = self._engines.exact, whole("top", top, least=1)
        known = self.tokenizer.n_vocab if self.tokenizer else None
        if isinstance(to, np.ndarray):
            if to.shape != (self.config.n_embd,):
                raise UsageError(f"a vector must be [{self.config.n_embd}], got {list(to.shape)}")
            if not np.isfinite(to).all():
                raise UsageError("the vector has numbers that are NaN or infinite")
            return nearest(engine, to.astype(np.float32), top, known=known)
        token = whole("token", to, least=0)
        if token >= self.config.n_vocab:
            raise UsageError(f"token id {token} is not in the model's vocabulary of {self.config.n_vocab}")
        return nearest(engine, engine.token_row(token, False), top, [token], known)

    def _ids(self, prompt: Prompt, special: bool) -> tuple[int, ...]:
        return context_tokens(prompt, self.config, self.tokenizer, special=special)

    def _edited(self: Self, edits_of: Callable[[Engine], Sequence[Edit]]) -> Self:
        from gpt2lab.engines.edited import EditedEngines

        model = copy(self)
        model._engines = cast("Engines", EditedEngines(self._engines, edits_of))
        model._prompt_cache = 0
        return model


def _pairs(heads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    try:
        return [(layer, head) for layer, head in heads]
    except (TypeError, ValueError):
        raise UsageError(f"heads must be pairs (layer, head), got {short_repr(heads)}") from None


def _numbers(name: str, each: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        found = list(values)
    except TypeError:
        raise UsageError(f"{name} must be a list of numbers, got {short_repr(values)}") from None
    return tuple(whole(each, value, least=0) for value in found)

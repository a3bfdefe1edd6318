"""Which part of a text is its context once it has outgrown what the model can hold."""

from __future__ import annotations


def window_start(n_tokens: int, n_ctx: int) -> int:
    """Where the context of a text of ``n_tokens`` tokens starts when it slides.

    Whenever the context is full the older half of it is dropped. A function of lengths alone, so what is drawn
    depends on nothing but the text.
    """
    if n_tokens <= n_ctx:
        return 0
    half = max(1, n_ctx // 2)
    return half * -((n_ctx - n_tokens) // half)

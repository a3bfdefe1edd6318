"""The context of a text that has outgrown what the model can hold."""

from __future__ import annotations


def window_start(n_tokens: int, n_ctx: int) -> int:
    """Return where the context of a text of ``n_tokens`` tokens starts when it slides.

    Whenever the context is full, its older half is dropped. The result depends on lengths alone, so the tokens drawn
    depend on nothing but the text.
    """
    if n_tokens <= n_ctx:
        return 0
    half = max(1, n_ctx // 2)
    return half * -((n_ctx - n_tokens) // half)

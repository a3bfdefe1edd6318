"""The text of one completion as a stream, which a notebook shows as it arrives."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import shortened

if TYPE_CHECKING:
    from gpt2lab.generation.completion import Prompt


class TextStream(Generator[str, None, None]):
    """A generator of the pieces of a text. A notebook whose cell ends with it shows prompt and text as it arrives."""

    def __init__(self, texts: Generator[str, None, None], prompt: Prompt) -> None:
        self._texts = texts
        self._prompt = prompt

    def __repr__(self) -> str:
        prompt = shortened(self._prompt) if isinstance(self._prompt, str) else f"{len(self._prompt)} ids"
        return f"<TextStream after {prompt}: iterate over it for the text>"

    def __next__(self) -> str:
        return next(self._texts)

    def send(self, value: None) -> str:
        """Return the next piece."""
        return self._texts.send(value)

    def throw(self, *error: Any) -> str:
        """Raise an exception where the text is generated."""
        return self._texts.throw(*error)

    def close(self) -> None:
        """End the generation and free all that it held."""
        self._texts.close()

    def _ipython_display_(self) -> None:
        """Print the prompt, and then the text piece by piece."""
        try:
            print(self._prompt if isinstance(self._prompt, str) else "", end="", flush=True)
            for piece in self:
                print(piece, end="", flush=True)
            print()
        finally:
            self.close()

"""From prompts and options to text: checked options, plans, the scheduler that batches them, and the loop over it."""

from gpt2lab.generation.run import in_order

__all__ = ["in_order"]

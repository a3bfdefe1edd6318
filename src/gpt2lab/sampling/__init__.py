"""The choice of the next token from the logits: parameters, stages, the draw."""

from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import stages, uniform

__all__ = ["SamplingParams", "stages", "uniform"]

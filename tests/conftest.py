"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: no test has a time limit for each example.
settings.register_profile("gpt2lab", deadline=None)
settings.load_profile("gpt2lab")

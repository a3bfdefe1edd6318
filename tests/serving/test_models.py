"""The models of a server."""

from __future__ import annotations

from unittest.mock import Mock

import gpt2lab
from gpt2lab.engines.native import NativeEngine
from gpt2lab.serving.metrics import Metrics
from gpt2lab.serving.models import ServedModels
from gpt2lab.serving.settings import Settings


def test_only_a_model_that_is_served_alone_keeps_to_cores(monkeypatch):
    keep = Mock()
    monkeypatch.setattr(NativeEngine, "keep_to_cores", keep)
    models = [(name, gpt2lab.load("tales")) for name in ("first", "second")]
    ServedModels(models, Settings(), Metrics())
    keep.assert_not_called()
    ServedModels(models[:1], Settings(), Metrics())
    keep.assert_called_once()

"""A small random GPT-2 as a folder and on a hub, and transformers' answers about it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2lab.weights import Checkpoint, convert

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "weights")]  # for the helpers there

from hub_server import Hub, point_hub_at
from oracle import SHAPE, Oracle, random_checkpoint


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return random_checkpoint(SHAPE)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, checkpoint):
    """Provide the model as a folder that transformers and gpt2lab read."""
    path = tmp_path_factory.mktemp("model") / "gpt2"
    convert(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def answers(folder):
    """Provide what transformers says about the model, as the contents of an answers file."""
    return Oracle(folder).answers()


@pytest.fixture
def hub(monkeypatch, tmp_path, folder):
    """Provide a hub that has the small model under the name of the released one, in an empty folder."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    running = Hub()
    point_hub_at(monkeypatch, running.url, tmp_path / "cache")
    running.add_folder("openai-community/gpt2", folder)
    yield running
    running.close()


@pytest.fixture(scope="session")
def state_file(folder):
    return Oracle(folder).state_file()


@pytest.fixture
def changed(tmp_path, checkpoint):
    """Provide ``changed(tensors, vocabulary=None)``, which writes the model with some other tensors, or another one."""

    def write(tensors, vocabulary=None):
        other = replace(checkpoint, tensors={**checkpoint.tensors, **tensors})
        convert(replace(other, tokenizer_files=vocabulary or checkpoint.tokenizer_files), tmp_path / "changed")
        return tmp_path / "changed"

    return write

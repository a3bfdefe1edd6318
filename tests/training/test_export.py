"""A trained run leaves as a Hugging Face folder and as GGUF, and computes the same there."""

import numpy as np
import pytest
import torch

import gpt2lab
import needs
from gpt2lab.weights import convert, open_checkpoint

TOKENS = [1, 2, 3, 4, 5, 6]


@pytest.fixture(params=[{}, {"lora": 2}], ids=["all weights", "LoRA"])
def trainer(request, make_trainer):
    trainer = make_trainer(steps=4, **request.param)
    trainer.train()
    return trainer


def test_the_run_folder_and_its_gguf_give_the_modules_logits(trainer, tmp_path):
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model.logits(trainer.model.hidden(torch.tensor([TOKENS])))[0].numpy()
    convert(open_checkpoint(trainer.run), tmp_path / "run.gguf", precision="float32")
    for model in (trainer.run, tmp_path / "run.gguf"):
        np.testing.assert_allclose(gpt2lab.load(str(model)).logits(TOKENS), expected, atol=1e-5)


def test_transformers_reads_the_run_folder(trainer):
    transformers = needs.package("transformers")
    trainer.model.eval()
    theirs = transformers.GPT2LMHeadModel.from_pretrained(trainer.run)
    with torch.no_grad():
        expected = trainer.model.logits(trainer.model.hidden(torch.tensor([TOKENS])))
        torch.testing.assert_close(theirs(torch.tensor([TOKENS])).logits, expected, atol=1e-5, rtol=1e-5)

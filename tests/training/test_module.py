import numpy as np
import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.training.module import GPT2
from gpt2lab.weights import open_checkpoint, tensor_shapes


def load(folder):
    checkpoint = open_checkpoint(folder)
    model = GPT2(checkpoint.config)
    model.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in checkpoint.tensors.items()})
    return model


def test_names_and_shapes_are_the_canonical_ones():
    config = ModelConfig(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=3)
    assert {name: tuple(t.shape) for name, t in GPT2(config).state_dict().items()} == tensor_shapes(config)


@pytest.mark.parametrize(("name", "kept"), [("odd", "full_logits"), ("tiny", "full_logits_slice")])
def test_logits_are_those_of_the_original_code(golden, name, kept):
    model, numbers = load(golden / name), np.load(golden / name / "golden.npz")
    with torch.no_grad():
        logits = model.logits(model.hidden(torch.from_numpy(numbers["full_tokens"])))
    assert np.abs(logits[..., : numbers[kept].shape[-1]].numpy() - numbers[kept]).max() <= 1e-4


@pytest.mark.parametrize("name", ["odd", "tiny"])
def test_eight_adam_steps_give_the_losses_of_the_original_code(golden, name):
    model, numbers = load(golden / name), np.load(golden / name / "golden.npz")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of(batch):
        tokens = torch.from_numpy(batch)
        return model(tokens[:, :-1], tokens[:, 1:]) / tokens[:, 1:].numel()

    losses = []
    for batch in numbers["train_batches"]:
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, numbers["train_losses"], rtol=1e-3)
    last = loss_of(numbers["train_batches"][0]).item()
    np.testing.assert_allclose(last, numbers["train_final_loss_first_batch"], rtol=1e-3)


def test_dropout_changes_training_and_not_evaluation():
    model = GPT2(ModelConfig(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=1), dropout=0.5)
    tokens = torch.arange(6)[None]
    assert not torch.equal(model.hidden(tokens), model.hidden(tokens))
    model.eval()
    assert torch.equal(model.hidden(tokens), model.hidden(tokens))

"""A random GPT-2 with GPT-2's tokenizer, and transformers' answers about it."""

from __future__ import annotations

import copy
import math
from itertools import chain
from pathlib import Path

import numpy as np

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.system.hashing import sha256_of
from gpt2lab.weights import Checkpoint, tensor_shapes
from gpt2lab.weights.vocabulary import gpt2_vocabulary

SHAPE = ModelConfig(n_ctx=64, n_embd=48, n_head=4, n_layer=3)
SOURCE = "transformers, asked by this test"
PROMPTS = ("The dog", "Hello, my dog is a little", "Once upon a time there was")
SENTENCE = "We study the laws of language models, and they're all different."
PARAGRAPHS = ["First Citizen:\nBefore we proceed any further, hear me speak.\n\n", "All:\nSpeak, speak.\n\n"]
BATCH = {"paragraphs": "play", "batch": 2, "time": 8}
DATASET, STATE = "somebody/starter-pack", "debug_state.bin"


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """Return random weights: embeddings as small as the released ones, and layers that keep what they are given.

    So the epsilon of the first layer norm matters as it does there.
    """
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        tensor = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            tensors[name] = 0.1 * tensor + (name.endswith("weight"))
        elif name.startswith("h."):
            tensors[name] = (2.5 if "c_attn" in name else 1) / math.sqrt(shape[0]) * tensor
        else:
            tensors[name] = 0.14 * tensor
    return Checkpoint(config, tensors, gpt2_vocabulary(), "test", "float32", Path("made"))


class Oracle:
    """The model in transformers, and its answers."""

    def __init__(self, folder: Path, tolerance: float = 2e-5) -> None:
        """Load the folder. The default ``tolerance`` is ten times our distance from transformers."""
        self.torch = needs.package("torch")
        transformers = needs.package("transformers")
        self.folder, self.tolerance = folder, tolerance
        self.model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(self, text):
        return self.tokenizer.encode(text)

    def logits(self, ids):
        """Return the logits after each id: float32 [n, n_vocab]."""
        with self.torch.no_grad():
            return self.model(self.torch.tensor([ids])).logits[0]

    def surprisals(self, ids):
        table = self.torch.log_softmax(self.logits(ids[:-1]).double(), -1)
        return [-float(table[at, id]) for at, id in enumerate(ids[1:])]

    def batch(self):
        found = [id for text in PARAGRAPHS for id in (50256, *self.ids(text))]
        return found[: BATCH["batch"] * BATCH["time"] + 1]

    def answers(self):
        kinds = chain(
            self.digests(), self.greedy(), self.numbers(), self.batches(), [{**self.adamw(), **BATCH}, self.state()]
        )
        checks = [{"name": f"{each['kind']} {number}", "source": SOURCE, **each} for number, each in enumerate(kinds)]
        return {"texts": {"play": PARAGRAPHS}, "models": {"124M": checks}}

    def digests(self):
        file = "model.safetensors"
        yield {"kind": "digest", "file": file, "sha256": sha256_of(self.folder / file)}
        yield {"kind": "tokens", "text": SENTENCE, "ids": self.ids(SENTENCE)}

    def greedy(self):
        for prompt in PROMPTS:
            ids = self.ids(prompt)
            given = self.torch.tensor([ids])
            found = self.model.generate(given, do_sample=False, max_new_tokens=12, pad_token_id=50256)[0].tolist()
            yield {"kind": "greedy", "prompt": prompt, "text": self.tokenizer.decode(found[len(ids) :]).rstrip("�")}

    def numbers(self):
        ids = self.ids("Hello, I am")
        logits = self.logits(ids)
        chosen = {str(id): float(logits[2, id]) for id in (0, 1, 7, 100, 1000, 50000)}
        mean, within = float(logits.double().mean()), {"tolerance": self.tolerance}
        yield {"kind": "logits", "ids": ids, "at": 2, "logits": chosen, "mean": mean, **within}
        ids = self.ids(SENTENCE)
        opened = self.surprisals([50256, *ids])
        yield {"kind": "surprisals", "text": SENTENCE, "nats": opened, **within}
        yield {"kind": "surprisals", "text": SENTENCE, "nats": self.surprisals(ids), "opened": False, **within}
        yield {"kind": "loss", "text": SENTENCE, "nats": sum(opened) / len(opened), **within}
        pair = {"context": "Hello", "continuation": " World and moon"}
        first, second = map(self.ids, pair.values())
        value = -sum(self.surprisals([*first, *second])[len(first) - 1 :])
        yield {"kind": "log_likelihood", **pair, "value": value, **within}

    def batches(self):
        ids, time = self.batch(), BATCH["time"]
        rows = [ids[at : at + time + 1] for at in range(0, len(ids) - 1, time)]
        losses = [each for row in rows for each in self.surprisals(row)]
        yield {"kind": "batch_loss", **BATCH, "nats": sum(losses) / len(losses), "tolerance": self.tolerance}

    def adamw(self):
        torch, model = self.torch, copy.deepcopy(self.model)  # in eval(): without dropout
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        ids = torch.tensor(self.batch())
        x, y = ids[:-1].view(BATCH["batch"], -1), ids[1:].view(BATCH["batch"], -1)
        losses = []
        for _ in range(4):
            loss = torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        how = {"learning_rate": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.01}
        return {"kind": "adamw", "losses": losses, "tolerance": 2e-3, **how}

    def state(self):
        return {"kind": "debug_state", **BATCH, "repository": DATASET, "file": STATE, "tolerance": 1e-4}

    def state_file(self):
        """Return the file of the check ``debug_state``: a header, the batch, its logits, and more."""
        ids, time = self.batch(), BATCH["time"]
        header = np.zeros(256, "<i4")
        header[:4] = 20240327, 2, BATCH["batch"], time
        logits = [self.logits(ids[at : at + time]).numpy() for at in range(0, len(ids) - 1, time)]
        parts = (header, np.array(ids[:-1], "<i4"), np.array(ids[1:], "<i4"), np.concatenate(logits).astype("<f4"))
        return b"".join(part.tobytes() for part in parts) + b"the loss and the gradients"

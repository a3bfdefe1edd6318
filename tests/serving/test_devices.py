"""A server whose model PyTorch computes: the same texts as in Python, and refusals of what looks inside."""

from __future__ import annotations

from pathlib import Path

import gpt2lab
import needs

TINY = Path(__file__).parents[1] / "golden" / "tiny"


@needs.mark("torch")
def test_a_server_on_pytorch_writes_texts_and_refuses_to_look_inside(start):
    model = gpt2lab.load(TINY, device="torch-cpu")
    api = start(models=[("tiny", model)])
    answer = api.complete(prompt="Once upon", max_tokens=8, seed=1, n=3).json()
    expected = [completion.text for completion in model.generate("Once upon", n=3, length=8, seed=1)]
    assert [choice["text"] for choice in answer["choices"]] == expected
    refusals = [
        api.http.post("/v1/embeddings", json={"input": "Once"}),
        api.complete(prompt="Once", steer={"positive": [1], "negative": [2], "layer": 0}),
    ]
    assert [refusal.status_code for refusal in refusals] == [400, 400]
    assert {refusal.json()["error"]["message"] for refusal in refusals} == {
        "PyTorch's engine cannot look inside the model or change it: use device cpu"
    }
    assert api.complete(prompt="Once upon", max_tokens=8, seed=1, n=3).json()["choices"] == answer["choices"]

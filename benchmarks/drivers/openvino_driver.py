"""OpenVINO GenAI: ``LLMPipeline`` on a folder exported by optimum-intel; options are properties of the CPU plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Generate, drive


def load(model: Path, threads: int, options: dict[str, Any]) -> Generate:
    import numpy as np
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(str(model), "CPU", INFERENCE_NUM_THREADS=threads, **options)

    def generate(prompts: list[list[int]], new: int) -> int:
        ids = np.array(prompts, np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = openvino_genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False)
        return sum(len(tokens) for tokens in pipeline.generate(inputs, config).tokens)

    return generate


if __name__ == "__main__":
    drive(load)

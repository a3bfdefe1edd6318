"""The settings that ``peers.py`` runs: gpt2lab and its peers in every width, each as it was found to run best.

Where a peer has several settings in a width, none is best for every workload, so the best one counts in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

WIDTHS = ("float32", "bfloat16", "8-bit", "4-bit")
PINNED = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
"""Environment that binds each OpenMP thread to a core, which makes llama.cpp a third faster on a busy machine."""


@dataclass(frozen=True)
class Setting:
    """One way to run one peer."""

    peer: str
    """Name of the driver and of its environment, one of :data:`PEERS`."""
    width: str
    label: str
    """Distinguishes the settings of a peer and width; results are filed under it."""
    model: str
    """The conversion of the model that it reads, see ``peer_models.py``."""
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    threads: int | None = None
    """None: the value of ``--threads``."""

    def restricted(self, isa: str) -> Setting:
        """Return the setting with the variables that keep its peer from other instructions than those of ``isa``."""
        return replace(self, environment=self.environment | RESTRICTIONS[self.peer].get(isa, {}))

    @property
    def name(self) -> str:
        return f"{self.peer} {self.label}"


PEERS = ("gpt2lab", "transformers", "ctranslate2", "llama_cpp", "openvino")

# oneDNN computes in OpenVINO, in PyTorch (with MKL and with kernels of its own, ATen's) and, with MKL, in CTranslate2.
_ONEDNN = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "avx512vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}}
_MKL = {"avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, "avx512vnni": {"MKL_ENABLE_INSTRUCTIONS": "AVX512_E1"}}
_ATEN = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2"}, "avx512vnni": {"ATEN_CPU_CAPABILITY": "avx512"}}
_CTRANSLATE2 = {"avx2": {"CT2_FORCE_CPU_ISA": "AVX2"}, "avx512vnni": {"CT2_FORCE_CPU_ISA": "AVX512"}}
ISAS = ("avx2", "avx512vnni")
RESTRICTIONS: dict[str, dict[str, dict[str, str]]] = {
    "gpt2lab": {isa: {"GPT2LAB_ISA": isa} for isa in ISAS},
    "transformers": {isa: _ONEDNN[isa] | _MKL[isa] | _ATEN[isa] for isa in ISAS},
    "ctranslate2": {isa: _ONEDNN[isa] | _MKL[isa] | _CTRANSLATE2[isa] for isa in ISAS},
    "llama_cpp": {},
    "openvino": _ONEDNN,
}
"""Peer → instruction set → environment. llama.cpp is compiled for it instead, see ``peer_environments.py``."""

UNRESTRICTED = {
    "openvino": "OpenVINO: oneDNN's products are restricted; attention and other kernels of its own are not",
}
"""Peer → the parts that it still computes with other instructions."""

GPT2LAB = {"float32": "float32", "bfloat16": "bfloat16", "8-bit": "int8", "4-bit": "int4"}
"""Width → gpt2lab's name for it."""


# The hint is what activations are rounded to; groups are those in which they are quantised for 8-bit products.
def _openvino(width: str, weights: str, hint: str, **more: int) -> Setting:
    label = " ".join([weights, hint, *(f"groups of {size}" for size in more.values())])
    return Setting("openvino", width, label, f"openvino-{weights}", {"INFERENCE_PRECISION_HINT": hint, **more})


def _llama_cpp(width: str, name: str, repack: bool) -> Setting:
    label = f"{name}{'' if repack else ', plain layout'}"
    return Setting("llama_cpp", width, label, f"gguf-{name}", {"repack": repack}, PINNED)


SETTINGS = [
    *(Setting("gpt2lab", width, name, "huggingface", {"precision": name}) for width, name in GPT2LAB.items()),
    Setting("transformers", "float32", "float32", "huggingface", {"dtype": "float32"}, PINNED),
    Setting("transformers", "bfloat16", "bfloat16", "huggingface", {"dtype": "bfloat16"}, PINNED),
    Setting("ctranslate2", "float32", "float32", "ctranslate2-float32", {"compute_type": "float32"}, PINNED),
    Setting("ctranslate2", "8-bit", "int8", "ctranslate2-int8", {"compute_type": "int8"}, PINNED),
    Setting("ctranslate2", "8-bit", "int8, 1 thread", "ctranslate2-int8", {"compute_type": "int8"}, threads=1),
    _llama_cpp("float32", "float32", repack=False),
    _llama_cpp("bfloat16", "bfloat16", repack=False),
    _llama_cpp("8-bit", "q8_0", repack=True),
    _llama_cpp("8-bit", "q8_0", repack=False),
    _llama_cpp("4-bit", "q4_0", repack=True),
    _llama_cpp("4-bit", "q4_0", repack=False),
]
"""The settings of every peer but OpenVINO, on any processor."""

_DYNAMIC = [
    _openvino("8-bit", "int8", "f32", DYNAMIC_QUANTIZATION_GROUP_SIZE=32),
    _openvino("8-bit", "int8", "f32", DYNAMIC_QUANTIZATION_GROUP_SIZE=128),
    _openvino("4-bit", "int4", "f32"),
]
# Without VNNI OpenVINO multiplies in float32, and it fails if its own choice of 8-bit products meets oneDNN's limit.
_IN_FLOAT32 = [
    _openvino("8-bit", "int8", "f32", DYNAMIC_QUANTIZATION_GROUP_SIZE=0),
    _openvino("4-bit", "int4", "f32", DYNAMIC_QUANTIZATION_GROUP_SIZE=0),
]
_FLOAT32 = _openvino("float32", "fp32", "f32")
OPENVINO = {
    "": [
        _FLOAT32,
        _openvino("bfloat16", "fp16", "bf16"),
        _openvino("bfloat16", "fp32", "bf16"),
        *_DYNAMIC,
        _openvino("8-bit", "int8", "bf16"),
        _openvino("4-bit", "int4", "bf16"),
    ],
    "avx512vnni": [_FLOAT32, _openvino("bfloat16", "fp16", "f32"), *_DYNAMIC],
    "avx2": [_FLOAT32, _openvino("bfloat16", "fp16", "f32"), *_IN_FLOAT32],
}
"""Instruction set → the settings of OpenVINO."""


def settings_for(isa: str) -> list[Setting]:
    """Return all settings, restricted to the instruction set ``isa`` unless it is ""."""
    return [setting.restricted(isa) for setting in [*SETTINGS, *OPENVINO[isa]]]

"""Adapters that peft saves, with and without their base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
from checkpoint_cases.registry import Written, logits_of, read, refused, safetensors_torch, saved, tiny

LORA = ("a PEFT adapter (LORA) for ", "merge it with peft, AutoPeftModelForCausalLM.from_pretrained(")


def adapted(base: Path, config: Any) -> Any:
    """Return a model from ``base`` with an adapter whose weights matter."""
    peft, torch = needs.package("peft"), needs.package("torch")
    model = peft.get_peft_model(needs.package("transformers").GPT2LMHeadModel.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.3)
    return model.eval()


def lora(folder: Path) -> Any:
    config = needs.package("peft").LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    return adapted(saved(tiny(), folder / "base").path, config)


@refused("folder with a LoRA adapter", writer="peft", note="merge it into its base", says=(*LORA, "base: merge"))
def adapter(folder: Path) -> Path:
    lora(folder).save_pretrained(folder / "adapter")
    return folder / "adapter"


@refused(
    "a base model and its adapter in one folder", writer="transformers, peft", note="merge it into its base", says=LORA
)
def adapter_in_base(folder: Path) -> Path:
    lora(folder).save_pretrained(folder / "base")
    assert (folder / "base" / "model.safetensors").is_file()
    return folder / "base"


@refused(
    "the same without `adapter_config.json`",
    writer="transformers, peft",
    note="merge it into its base",
    says=("adapter_model.safetensors is a PEFT adapter (of unknown type)",),
)
def adapter_in_base_without_config(folder: Path) -> Path:
    path = adapter_in_base(folder)
    (path / "adapter_config.json").unlink()
    return path


@refused("an `adapter_model.safetensors` by its path", writer="peft", note="merge it into its base", says=LORA)
def adapter_by_path(folder: Path) -> Path:
    return adapter_in_base(folder) / "adapter_model.safetensors"


@refused(
    "folder with a prefix or a soft prompt",
    writer="peft",
    note="it cannot be merged",
    says=("a PEFT adapter (PREFIX_TUNING)", "cannot be merged"),
)
def soft_prompt(folder: Path) -> Path:
    config = needs.package("peft").PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted(saved(tiny(), folder / "base").path, config).save_pretrained(folder / "adapter")
    return folder / "adapter"


@refused(
    "a model saved with unmerged adapters",
    writer="peft",
    note="merge them first",
    says=("lora_A", "belongs to an adapter: merge it"),
)
def unmerged(folder: Path) -> Path:
    model, path = lora(folder), folder / "base"
    tensors = {name: tensor.clone() for name, tensor in model.base_model.model.transformer.state_dict().items()}
    safetensors_torch().save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


@read(
    "the base model beside an adapter, by the path of its file",
    writer="transformers, peft",
    note="the base model alone",
)
def base_by_path(folder: Path) -> Written:
    return Written(adapter_in_base(folder) / "model.safetensors", logits_of(tiny()))


@read("an adapter merged by `merge_and_unload`", writer="peft", note="an ordinary model")
def merged(folder: Path) -> Written:
    model = lora(folder)
    expected = logits_of(model)
    model.merge_and_unload().save_pretrained(folder / "merged")
    return Written(folder / "merged", expected)

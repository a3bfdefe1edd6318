"""Folders that transformers and its Trainer save, and files in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import needs
from checkpoint_cases.registry import Written, logits_of, read, refused, safetensors_torch, saved, tiny


def changed(folder: Path, **values: Any) -> Path:
    """Change values of a folder's ``config.json``; None leaves one out."""
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in {**config, **values}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def rewritten(folder: Path, tensors: dict[str, Any]) -> None:
    """Write other tensors into a folder's ``model.safetensors``."""
    contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    safetensors_torch().save_file(contiguous, folder / "model.safetensors", {"format": "pt"})


@read("folder with `config.json` and `model.safetensors`", writer="transformers", note="every tensor, by its name")
def one_file(folder: Path) -> Written:
    return saved(tiny(), folder / "hf")


@read("folder with `model.safetensors.index.json` and shards", writer="transformers", note="as the index lists them")
def shards(folder: Path) -> Written:
    return saved(tiny(), folder / "hf", max_shard_size="20KB")


@read("weights in float16 or bfloat16", writer="transformers", note="each value as it is stored")
def bfloat16(folder: Path) -> Written:
    return saved(tiny().bfloat16(), folder / "hf")


@read("weights in float64", writer="transformers", note="rounded to float32; a note says so")
def float64(folder: Path) -> Written:
    written = saved(tiny().double(), folder / "hf")
    return Written(written.path, written.logits, says=("float64 weights are rounded to float32",))


@read("folder with `pytorch_model.bin`", writer="transformers before 5", note="needs PyTorch")
def torch_file(folder: Path) -> Written:
    return with_torch_file(tiny(), folder / "hf")


def with_torch_file(model: Any, folder: Path, prefix: str = "") -> Written:
    """Save as transformers did before it had safetensors: a state_dict, in which the head is the embedding again."""
    written = saved(model, folder)
    (folder / "model.safetensors").unlink()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    needs.package("torch").save(state, folder / "pytorch_model.bin")
    return written


@read("folder with `pytorch_model.bin` of PyTorch before 1.6", writer="transformers of 2019", note="needs PyTorch")
def old_torch_file(folder: Path) -> Written:
    written, torch = with_torch_file(tiny(), folder / "hf"), needs.package("torch")
    state = torch.load(written.path / "pytorch_model.bin")
    torch.save(state, written.path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return written


@read(
    "folder with `pytorch_model.bin.index.json` and shards",
    writer="transformers before 5",
    note="as the index lists them",
)
def torch_shards(folder: Path) -> Written:
    written, torch = with_torch_file(tiny(), folder / "hf"), needs.package("torch")
    state = torch.load(written.path / "pytorch_model.bin")
    (written.path / "pytorch_model.bin").unlink()
    weight_map = {name: f"pytorch_model-0000{1 + len(name) % 2}-of-00002.bin" for name in state}
    for file in set(weight_map.values()):
        torch.save({name: state[name] for name in state if weight_map[name] == file}, written.path / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (written.path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return written


@read("a `pytorch_model.bin` by its path", writer="transformers before 5", note="that file, by `config.json` beside it")
def torch_file_by_path(folder: Path) -> Written:
    written = with_torch_file(tiny(), folder / "hf")
    rewritten(written.path, tiny(seed=1).state_dict())
    return Written(written.path / "pytorch_model.bin", written.logits)


@read("a `.safetensors` file by its path, with others beside it", writer="safetensors", note="that file and no other")
def safetensors_by_path(folder: Path) -> Written:
    saved(tiny(), folder / "hf")
    model = tiny(seed=1)
    safetensors_torch().save_model(model, folder / "hf" / "epoch2.safetensors")
    return Written(folder / "hf" / "epoch2.safetensors", logits_of(model))


@read("a `model.safetensors.index.json` by its path", writer="transformers", note="the shards that it lists")
def index_by_path(folder: Path) -> Written:
    written = shards(folder)
    return Written(written.path / "model.safetensors.index.json", written.logits)


@refused(
    "one shard by its path",
    writer="transformers",
    note="give its folder",
    says=("shards: give their folder",),
)
def one_shard(folder: Path) -> Path:
    return next(shards(folder).path.glob("model-00001-of-*.safetensors"))


@refused(
    "a weights file without `config.json` beside it",
    writer="safetensors",
    note="put `config.json` there",
    says=("epoch2.safetensors is a safetensors file; put the model's config.json",),
)
def safetensors_alone(folder: Path) -> Path:
    path = safetensors_by_path(folder).path
    (path.parent / "config.json").unlink()
    return path


@read("tied weights under `lm_head.weight` alone", writer="safetensors' `save_model`", note="one matrix for both")
def head_alone(folder: Path) -> Written:
    written = saved(tiny(), folder / "hf")
    package = safetensors_torch()
    package.save_model(tiny(), written.path / "model.safetensors")
    names = package.load_file(written.path / "model.safetensors")
    assert "lm_head.weight" in names and "transformer.wte.weight" not in names
    return written


@refused(
    "a `lm_head.weight` that differs, though `tie_word_embeddings` is true",
    writer="transformers, by hand",
    note="the file contradicts itself",
    says=("lm_head.weight differs from wte.weight",),
)
def contradicting_head(folder: Path) -> Path:
    written = saved(tiny(), folder / "hf")
    state = tiny().state_dict()
    rewritten(written.path, {**state, "lm_head.weight": state["lm_head.weight"] + 1})
    return written.path


@read("names that begin with `module.`", writer="PyTorch's DistributedDataParallel", note="the prefix is dropped")
def distributed(folder: Path) -> Written:
    return with_torch_file(tiny(), folder / "hf", "module.")


@read("names that begin with `_orig_mod.`", writer="torch.compile", note="the prefix is dropped")
def compiled(folder: Path) -> Written:
    return with_torch_file(tiny(), folder / "hf", "_orig_mod.")


@read("names without `transformer.`", writer="transformers' `GPT2Model`", note="the head is the embedding")
def without_head(folder: Path) -> Written:
    model = tiny()
    written = Written(folder / "hf", logits_of(model))
    model.transformer.save_pretrained(written.path)
    return written


@read("`GPT2DoubleHeadsModel`", writer="transformers", note="its other head is ignored; a note names it")
def double_heads(folder: Path) -> Written:
    transformers = needs.package("transformers")
    written = saved(tiny(), folder / "plain")
    model = transformers.GPT2DoubleHeadsModel.from_pretrained(written.path)
    model.save_pretrained(folder / "hf")
    line = "not part of this GPT-2 are ignored: multiple_choice_head.summary."
    return Written(folder / "hf", written.logits, says=(line,))


@read(
    "more layers than `n_layer`, and tensors of other programs",
    writer="by hand",
    note="ignored, as in transformers; a note names them",
)
def more_tensors(folder: Path) -> Written:
    written = saved(tiny(), folder / "hf")
    state = {**tiny(n_layer=3).transformer.state_dict(), **tiny().transformer.state_dict()}
    rewritten(written.path, {**state, "v_head.summary.weight": state["ln_f.weight"]})
    line = "are ignored: h.2.attn.c_attn.bias, h.2.attn.c_attn.weight, h.2.attn.c_proj.bias and 10 more"
    return Written(written.path, written.logits, says=(line,))


@refused(
    "a model with another head",
    writer="transformers' `GPT2ForSequenceClassification`",
    note="it is not a language model",
    says=("config.json: architectures is ['GPT2ForSequenceClassification']",),
)
def classifier(folder: Path) -> Path:
    model = needs.package("transformers").GPT2ForSequenceClassification(tiny().config)
    model.save_pretrained(folder / "hf")
    return folder / "hf"


@read(
    "`config.json` of 2019, without `model_type`",
    writer="pytorch-transformers (by hand)",
    note="`architectures` says that it is a GPT-2",
)
def config_of_2019(folder: Path) -> Written:
    written = with_torch_file(tiny(), folder / "hf")
    absent = ("model_type", "activation_function", "n_inner", "transformers_version", "dtype", "scale_attn_weights")
    changed(written.path, **dict.fromkeys(absent), n_ctx=16)
    return written


@refused(
    "`config.json` with neither `model_type` nor `architectures`",
    writer="by hand",
    note="add `model_type`",
    says=("config.json: model_type is None",),
)
def config_of_nothing(folder: Path) -> Path:
    return changed(saved(tiny(), folder / "hf").path, model_type=None, architectures=None)


@refused(
    "folder of another kind of model",
    writer="transformers",
    note="`model_type` is not `gpt2`",
    says=("config.json: model_type is 'gpt_neo'",),
)
def another_model(folder: Path) -> Path:
    return changed(saved(tiny(), folder / "hf").path, model_type="gpt_neo", architectures=["GPTNeoForCausalLM"])


@refused(
    "a model with code of its own",
    writer="custom models on the hub",
    note="`auto_map` names code that is not run",
    says=("config.json: auto_map is {'AutoModelForCausalLM': 'modeling.My'}",),
)
def own_code(folder: Path) -> Path:
    return changed(saved(tiny(), folder / "hf").path, auto_map={"AutoModelForCausalLM": "modeling.My"})


@refused(
    "quantised weights",
    writer="bitsandbytes, GPTQ, AWQ",
    note="give the unquantised model",
    says=("config.json: quantization_config is {'quant_method': 'gptq'",),
)
def quantised(folder: Path) -> Path:
    return changed(saved(tiny(), folder / "hf").path, quantization_config={"quant_method": "gptq", "bits": 4})


@read("a Trainer's output folder with one `checkpoint-N`", writer="transformers' `Trainer`", note="that checkpoint")
def trainer(folder: Path) -> Written:
    model = trained(folder / "out", steps=1)
    return Written(
        folder / "out", logits_of(model), says=("the model is read from checkpoint-1, the only checkpoint there",)
    )


def trained(folder: Path, steps: int) -> Any:
    """Let transformers' Trainer save after each of some steps; return the model."""
    transformers, model = needs.package("transformers"), tiny()
    needs.check("peft")  # brings accelerate
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    return model.eval()


@refused(
    "a Trainer's output folder with several `checkpoint-N`",
    writer="transformers' `Trainer`",
    note="give the path of one",
    says=("holds 2 checkpoints of a Trainer: give the path of one (checkpoint-1, checkpoint-2)",),
)
def trainer_with_several(folder: Path) -> Path:
    trained(folder / "out", steps=2)
    return folder / "out"


@read("the hub's cache of a repository, `models--…`", writer="huggingface_hub", note="the snapshot of `main`")
def hub_cache(folder: Path) -> Written:
    written = saved(tiny(), folder / "models--user--name" / "snapshots" / ("a" * 40))
    shutil.copytree(saved(tiny(seed=1), folder / "other").path, written.path.with_name("b" * 40))
    (folder / "models--user--name" / "refs").mkdir()
    (folder / "models--user--name" / "refs" / "main").write_text("a" * 40)
    return Written(folder / "models--user--name", written.logits)


@refused(
    "the hub's cache with several snapshots and no `refs/main`",
    writer="huggingface_hub",
    note="give the path of one",
    says=("refs/main does not name a snapshot; give the path of one (aaaa",),
)
def hub_cache_without_main(folder: Path) -> Path:
    path = hub_cache(folder).path
    (path / "refs" / "main").unlink()
    return path

"""A multimodal model as one folder: written whole or not at all, read back by mapping.

    config.json              model type `vertebra`, with the language model's config inside
    model*.safetensors       every tensor once, by the model's own names (tied heads are one tensor)
    generation_config.json   tokenizer files   displaced.safetensors   aside.safetensors, aside/
    vertebra.json            backbone id, prompt builder, fingerprint, versions; parts with encoder, projector, slots; heads

The files are those that a `Trainer` leaves when it is given `ModelFiles(model)` as its processing class, so a training
checkpoint is a model folder too. `load_backbone(folder)` reads the backbone out of either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.saving import config_to_save, save_vocabulary
from vertebra.backbone.saving import record as backbone_record
from vertebra.backbone.source import MULTIMODAL, RECORD, CheckpointSource, find
from vertebra.backbone.tensorfile import save_shards
from vertebra.backbone.weights import mapped_tensors, parameters_on_meta
from vertebra.errors import CheckpointError
from vertebra.model.aside import Aside
from vertebra.model.encoders.kinds import part_from, part_record
from vertebra.model.heads.kinds import head_from, head_record
from vertebra.sequence.length import listed

SHARD = 5 * 10**9
PARTS, HEADS = "parts.", "heads."


def write_model(model: Any, folder: Path, *, state: Mapping[str, Any] | None = None) -> None:
    """The files of a model folder into one that exists. `state`: its tensors, where somebody gathered them (sharded)."""
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if lazy and state is None:
        raise CheckpointError(f"{len(lazy)} tensors have no weights yet ({listed(lazy)}); load them before saving")

    save_shards(state or model.state_dict(), folder, largest=SHARD)
    write_companions(model, folder)


def write_companions(model: Any, folder: Path) -> None:
    """Everything of a model folder but the weights."""
    backbone = model.backbone
    config = {
        "model_type": MULTIMODAL,
        "architectures": ["VertebraModel"],
        "text_config": config_to_save(backbone.llm),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    backbone.llm.generation_config.save_pretrained(folder)
    save_vocabulary(backbone, folder)
    (folder / RECORD).write_text(json.dumps(record_of(model), indent=1, ensure_ascii=False), encoding="utf-8")
    model.aside.write(folder)


def record_of(model: Any) -> dict[str, Any]:
    """What `vertebra.json` says of a model."""
    return {
        **backbone_record(model.backbone),
        "parts": {name: part_record(part) for name, part in model.parts.items()},
        "heads": {name: head_record(head) for name, head in model.heads.items()},
        "embedding": list(model.backbone.llm.get_input_embeddings().weight.shape),
        "record": model.record,
    }


class ModelFiles:
    """What a `Trainer` takes as `processing_class`, so that each of its checkpoints is a whole model folder."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def save_pretrained(self, folder: str | Path, **ignored: Any) -> None:
        """Everything but the weights, which the Trainer writes itself."""
        write_companions(self.model, Path(folder))


def load_model(build: Callable[..., Any], where: str | Path, **options: Any) -> Any:
    """`build(backbone, parts, heads=…, record=…)` from a folder; `options` are those of `load_backbone`."""
    source = find(where)
    described = source.record.get("parts")
    if described is None:
        what = "a backbone alone: use load_backbone" if source.record else "no model folder of ours (it has no record)"
        raise CheckpointError(f"`{source.name}` is {what}; expected one that `Model.save` wrote")
    runs = bool(options.get("inference_mode"))
    if runs:
        options.setdefault("weights", source.folder)
    backbone = load_backbone(source.folder, **options)
    parts, heads = recorded_parts(source), recorded_heads(source)
    model = build(backbone, parts, heads=heads, record=source.record.get("record"), aside=Aside.read(source.folder))
    tensors = mapped_tensors(source.folder)
    for modules, prefix, what in ((model.parts, PARTS, "part"), (model.heads, HEADS, "head")):
        _fill(modules, tensors, source.name, prefix, what)
        if options.get("dtype") is not None:
            modules.to(backbone.dtype)
        modules.to(backbone.device)
    if runs:
        return model.eval()
    own_weights(model)
    return model.train()


def own_weights(model: nn.Module) -> None:
    """Take mapped weights into memory: they would change under a training that saves into the same file."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():  # packed matrices are no file's
                parameter.data = parameter.data.clone()


def recorded_parts(source: CheckpointSource) -> dict[str, Any]:
    """The parts that a folder's record describes, without weights."""
    described = source.record.get("parts") or {}
    with parameters_on_meta():
        return {name: part_from(entry, where=f"part `{name}` of `{source.name}`") for name, entry in described.items()}


def recorded_heads(source: CheckpointSource) -> dict[str, Any]:
    """The heads that a folder's record describes, without weights."""
    described = source.record.get("heads") or {}
    with parameters_on_meta():
        return {name: head_from(entry, where=f"head `{name}` of `{source.name}`") for name, entry in described.items()}


def _fill(modules: nn.ModuleDict, tensors: Mapping[str, torch.Tensor], where: str, prefix: str, what: str) -> None:
    """Put mapped tensors into parts or heads; all faults are reported at once."""
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    expected = modules.state_dict()
    faults = [f"`{prefix}{name}` is missing" for name in expected if name not in found]
    faults += [
        f"`{prefix}{name}` is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    faults += [f"`{prefix}{name}` belongs to no {what}" for name in found if name not in expected]
    if faults:
        raise CheckpointError(
            f"the weights in `{where}` do not fit the {what}s that its record describes: {listed(faults)}"
        )
    modules.load_state_dict(found, assign=True)


def share_once(model: nn.Module) -> None:
    """State dicts of this model hold a tensor that several names share (a tied head) once, and take it back so.

    safetensors refuses shared tensors, and a plain `Trainer` saves whatever `state_dict()` gives.
    """
    model.register_state_dict_post_hook(_drop_aliases)
    model.register_load_state_dict_pre_hook(_restore_aliases)


def _drop_aliases(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for other in _aliases(module):
        state.pop(prefix + other, None)


def _restore_aliases(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for other, first in _aliases(module).items():
        if prefix + first in state:
            state.setdefault(prefix + other, state[prefix + first])


def _aliases(module: nn.Module) -> dict[str, str]:
    """Further names of shared parameters, and the first name of each."""
    first: dict[int, str] = {}
    aliases = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            aliases[name] = first[id(parameter)]
    return aliases

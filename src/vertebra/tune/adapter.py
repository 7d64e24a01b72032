"""An adapter as a folder, and back: everything that training changed, and what belongs to the base.

    lora_adapter/           an ordinary PEFT folder; PEFT alone loads it into the base
    lora_adapter.<part>/    … where encoders or projectors have adapters of their own
    trained.safetensors     what was trained in full beside the adapters (projectors, heads, patterns)
    parts.safetensors       encoders, projectors and action heads, whole, where the base's folder does not hold them
    vertebra.json           the base's id and fingerprint, growths, prompt builder, statistics
    tokenizer files

`load_adapter` restores exactly this on a fresh base: growths are replayed, and a wrong base is an error. It takes a folder
that PEFT wrote itself too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vertebra import log
from vertebra.backbone.habits import check_fingerprint
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.saving import record
from vertebra.backbone.source import RECORD, read_json
from vertebra.backbone.tokenizers import save_tokenizer
from vertebra.backbone.vocabulary import Growth, regrow, undo_growth
from vertebra.errors import CheckpointError, ConfigError, VertebraError
from vertebra.folders import require_free, write_whole
from vertebra.model.description import holds_parts
from vertebra.model.encoders.kinds import part_from, part_record
from vertebra.model.heads.kinds import head_from, head_record
from vertebra.model.model import Model, model_of
from vertebra.reading import reading
from vertebra.tune.fingerprint import BasePrint, base_print, check_base
from vertebra.tune.folder import fault_of, put_on, saved_tensors, take_out
from vertebra.tune.lora import LANGUAGE, Adapter, has_adapter
from vertebra.tune.parts import Parts, parts_of
from vertebra.tune.record import AdapterFolder, folder_of, name_to_load, read_adapter, require_tokens, rows_without_pads
from vertebra.tune.stages import is_adapter

TRAINED = "trained.safetensors"
PARTS = "parts.safetensors"


def save_adapter(
    model: Any, adapter: Adapter, folder: str | Path, *, extra: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write an adapter, whole or not at all. `extra` joins the record: what a policy needs (action statistics)."""
    folder = Path(folder)
    require_free(folder, overwrite=overwrite)
    return write_whole(folder, lambda part: write_adapter(model, adapter, part, extra=extra), replace=True)


def write_adapter(model: Any, adapter: Adapter, folder: Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """The files of an adapter into a folder that exists (a checkpoint writes its own around them)."""
    from vertebra.tune.biased import forgets_bias

    parts = parts_of(model)
    for name, root in adapter.roots.items():
        inside = folder / folder_of(name)
        inside.mkdir()
        save_file(adapter_tensors(root), inside / "adapter_model.safetensors", metadata={"format": "pt"})
        config = root.peft_config["default"]
        was = config.inference_mode, config.base_model_name_or_path
        config.inference_mode = True
        if name == LANGUAGE and parts.backbone is not None:
            config.base_model_name_or_path = parts.backbone.hf_hub_path
        config.save_pretrained(inside)
        config.inference_mode, config.base_model_name_or_path = was
    brought = _brought(parts)
    trains = {n for n, p in model.named_parameters() if p.requires_grad} | set(adapter.trained)
    trained = [n for n, _ in model.named_parameters() if n in trains and not is_adapter(n)]
    _save({n: p for n, p in model.named_parameters() if n in trained and _owner(n) not in brought}, folder / TRAINED)
    _save(_whole_parts(parts, brought), folder / PARTS)
    about: dict[str, Any] = {"record": parts.record, **(extra or {})}
    if parts.backbone is not None:
        about |= record(parts.backbone)
        save_tokenizer(parts.backbone.tokenizer, folder)
    about["adapter"] = {
        "base": asdict(adapter.base),
        "source": None if parts.backbone is None else name_to_load(parts.backbone),
        "roots": list(adapter.roots),
        "head_bias": not forgets_bias(parts.lm),
        "trained": trained,
        "parts": {name: part_record(part) for name, part in parts.outside.items() if f"parts.{name}" in brought},
        "heads": {name: head_record(head) for name, head in parts.answering.items() if f"heads.{name}" in brought},
    }
    (folder / RECORD).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def adapter_tensors(root: Any) -> dict[str, torch.Tensor]:
    """An adapter's tensors under the names that PEFT saves."""
    kept: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in saved_tensors(root).items():
        shared = tensor.data_ptr() in places  # tables that PEFT ties; a file holds each by itself
        places.add(tensor.data_ptr())
        kept[name] = tensor.detach().clone() if shared else tensor.detach().cpu().contiguous()
    return kept


def load_adapter(
    base: Any, folder: str | Path, *, trainable: bool = False, name: str = "", **options: Any
) -> tuple[Any, Adapter]:
    """Put a saved adapter on its base (a model, or the id or folder of one); returns the model and the adapter.

    The base may be ungrown: recorded growths that it lacks are replayed. Statistics, prompt builder and tokenizer habits
    are those of the training. A folder that PEFT wrote itself holds the adapter alone, and no fingerprint of its base.
    `options` are `load_backbone`'s, where the base is loaded here.
    """
    found, who = read_adapter(folder), name or str(folder)
    model, brought = _with_parts(_loaded(base, options), found, who)
    parts = parts_of(model)
    if has_adapter(model):
        raise CheckpointError(f"`{who}`: the base has an adapter already; load the base anew, or merge the first one")
    _refuse_merged(parts, found, who)
    with _given_back_on_error(model, parts):
        prepared = _prepared(parts, found, brought, who)
        rows = None if found.about else rows_without_pads(parts.backbone)
        roots = {root: _put_on(parts, root, inside, trainable, rows) for root, inside in found.roots.items()}
        full = _spelled(parts, found.adapter.get("trained", ())) if found.about else _trained_by_peft(model, parts.lm)
        if found.about:
            _load_trained(parts, found.folder, [n for n in full if _owner(n) not in brought], who=who)
    _with_bias(parts.lm, found.adapter, who)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable and (is_adapter(parameter_name) or parameter_name in full))
    for root in roots.values() if not trainable else ():
        root.eval()
    if parts.backbone is not None:
        parts.backbone.name = who
    parts.record.update(found.about.get("record", {}))
    known = ("format", "backbone", "versions", "adapter")
    about = {k: v for k, v in found.about.items() if k not in known}
    return model, Adapter(roots=roots, base=prepared, trained=tuple(full), about=about)


def _prepared(parts: Parts, found: AdapterFolder, brought: Collection[str], who: str) -> BasePrint:
    """The base with the tokens of the training, and its fingerprint without them."""
    if not found.about:  # PEFT's own folder: no fingerprint, and no growth that could be replayed
        if parts.backbone is not None:
            require_tokens(parts.backbone, found.folder)
        return base_print(parts)
    with reading(f"what `{who}` reports of its base in {RECORD} is damaged", "save the adapter again"):
        checked = check_base(parts, BasePrint(**found.adapter["base"]), who=who, brought=brought)
    if parts.backbone is not None:
        with reading(f"the backbone in {RECORD} of `{who}` is damaged", "save the adapter again"):
            _replay(parts.backbone, found.about["backbone"], who)
    return checked


@contextmanager
def _given_back_on_error(model: Any, parts: Parts) -> Iterator[None]:
    """What does not fit leaves the base as it was: whoever gave it may try another folder."""
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    backbone = parts.backbone
    before = (len(backbone.growths), backbone._builder) if backbone is not None else (0, None)
    try:
        yield
    except VertebraError:
        for root in (parts.lm, *parts.encoders.values(), *parts.projector.values()):
            take_out(root)
        for parameter, trained in trains:
            parameter.requires_grad_(trained)
        if backbone is not None:
            while len(backbone.growths) > before[0]:
                undo_growth(backbone)
            backbone._builder = before[1]
        raise


def _trained_by_peft(model: Any, lm: Any) -> list[str]:
    """What PEFT would train beside its own tensors: biases, where the config says so."""
    inside = {id(parameter) for parameter in lm.parameters() if parameter.requires_grad}
    return [name for name, parameter in model.named_parameters() if id(parameter) in inside and not is_adapter(name)]


def _refuse_merged(parts: Parts, found: AdapterFolder, who: str) -> None:
    where = Path(getattr(parts.backbone, "hf_hub_path", "")) / RECORD
    merged = read_json(where).get("merged", []) if where.is_file() else []
    if found.digest in merged:
        raise CheckpointError(f"`{who}` is merged into `{where.parent}` already; merging it twice would double it")


def _replay(backbone: Any, recorded: Mapping[str, Any], who: str) -> None:
    """Growths that the base has not seen, and the tokenizer's fingerprint afterwards."""
    expected = [Growth.from_json(entry) for entry in recorded["growths"]]
    for done, growth in enumerate(backbone.growths):
        if done >= len(expected) or growth.to_json() != expected[done].to_json():
            raise CheckpointError(
                f"`{who}` was trained with the added tokens {[list(g.tokens) for g in expected]}; the base has "
                f"{[list(g.tokens) for g in backbone.growths]}. Load the base as it was, without growing it"
            )
    for growth in expected[len(backbone.growths) :]:
        regrow(backbone, growth)
    check_fingerprint(backbone.tokenizer, recorded["fingerprint"], who)
    if recorded.get("prompt_builder"):
        backbone._builder = recorded["prompt_builder"]


def _put_on(parts: Parts, root: str, folder: Path, trainable: bool, rows: int | None) -> Any:
    module = parts.lm if root == LANGUAGE else parts.module(root)
    if module is None:
        raise CheckpointError(f"`{folder}` is an adapter for {root}, which this model does not have")
    return put_on(module, folder, trainable=trainable, rows=rows)


def _with_bias(lm: Any, about: Mapping[str, Any], who: str) -> None:
    """New rows of a biased head as they were trained: with the bias, or as PEFT alone computes them, without."""
    from vertebra.tune.biased import add_bias, forgets_bias

    if about.get("head_bias"):
        add_bias(lm)
    elif forgets_bias(lm):
        log.warn(
            f"`{who}` trained rows of a head without the head's bias, as PEFT alone does; it runs as it was trained, and a "
            "merge takes the bias away. Train it again to have the bias"
        )


def _load_trained(parts: Parts, folder: Path, names: Collection[str], *, who: str) -> None:
    """Fill what was trained in full; the record names it, so that nothing can be missing or left over."""
    tensors = _read(folder / TRAINED)
    tensors = dict(zip(_spelled(parts, tensors), tensors.values(), strict=True))
    named = dict(parts.model.named_parameters())
    faults = [f"`{name}` is missing" for name in sorted(names) if name not in tensors]
    for name, tensor in tensors.items():
        if name not in named or name not in names:
            faults.append(f"`{name}` belongs nowhere")
        elif fault := fault_of(tensor, named[name]):
            faults.append(f"`{name}` {fault}")
    if faults:
        raise CheckpointError(
            f"`{who}` holds trained tensors that the base and its {RECORD} have not, or not so: {', '.join(faults)}. Copy "
            "or save it again"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            named[name].copy_(tensor)


def _spelled(parts: Parts, names: Iterable[str]) -> list[str]:
    """Names of a backbone's tensors as this model has them: it may stand alone, or be part of a model."""
    plain = [name.removeprefix("backbone.") for name in names]
    return [parts.prefix + name if name.startswith("llm.") else name for name in plain]


def _loaded(base: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(base, (str, Path)):
        if options:
            raise ConfigError(f"{', '.join(options)}: the base is loaded already; give these where it is loaded")
        return base
    return Model.load(base, **options) if holds_parts(base) else load_backbone(base, **options)


def _brought(parts: Parts) -> list[str]:
    """What fills slots or answers in them and the folder of the base does not hold, so that the adapter's must; by the
    names in the model (`parts.image`, `heads.action`)."""
    if not parts.outside and not parts.answering:
        return []
    where = Path(getattr(parts.backbone, "hf_hub_path", "")) / RECORD
    held = read_json(where) if where.is_file() else {}
    kinds = {"parts": parts.outside, "heads": parts.answering}
    return [f"{kind}.{name}" for kind, found in kinds.items() for name in found if name not in held.get(kind, {})]


def _owner(name: str) -> str:
    """The part or head that a tensor belongs to, by its name; empty for the backbone's."""
    kind, _, rest = name.partition(".")
    return f"{kind}.{rest.partition('.')[0]}" if kind in ("parts", "heads") else ""


def _whole_parts(parts: Parts, brought: Collection[str]) -> dict[str, torch.Tensor]:
    """Every tensor of these parts and heads by its name without an adapter."""
    return {
        f"{owner}.{key.replace('.base_layer.', '.')}": tensor
        for owner in brought
        for key, tensor in parts.model.get_submodule(owner).state_dict().items()
        if not is_adapter(f".{key}")
    }


def _with_parts(model: Any, found: AdapterFolder, who: str) -> tuple[Any, list[str]]:
    """The base with the parts and heads that the adapter's folder brings, filled; and their names in the model."""
    described = {kind: found.adapter.get(kind, {}) for kind in ("parts", "heads")}
    brought = [f"{kind}.{name}" for kind, entries in described.items() for name in entries]
    if not brought:
        return model, []
    model, folder = model_of(model), found.folder
    for kind, build in (("parts", part_from), ("heads", head_from)):
        modules: Any = getattr(model, kind)
        for name, entry in described[kind].items():
            if name not in modules:
                made: Any = build(entry, where=f"{kind[:-1]} `{name}` of `{who}`")
                modules[name] = made.to(model.device, model.backbone.dtype)
    tensors = _read(folder / PARTS)
    named = {name: tensor for name, tensor in model.state_dict().items() if _owner(name) in brought}
    faults = [f"`{n}` is missing" for n in named if n not in tensors]
    faults += [f"`{n}` belongs nowhere" for n in tensors if n not in named]
    faults += [f"`{n}` {fault}" for n, t in tensors.items() if n in named and (fault := fault_of(t, named[n]))]
    if faults:
        raise CheckpointError(f"the parts in `{folder / PARTS}` do not fit the base's: {', '.join(faults)}")
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(tensors[name])
    return model, brought


def _save(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    if tensors:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that is only there where there was something to keep."""
    with reading(f"`{file}` is damaged"):
        return load_file(file) if file.is_file() else {}

"""An adapter as a folder, and back: everything that training changed, and what belongs to the base.

    lora_adapter/           an ordinary PEFT folder; PEFT alone loads it into the base
    lora_adapter.<part>/    … where encoders or projectors have adapters of their own
    trained.safetensors     what was trained in full beside the adapters (projectors, heads, patterns)
    parts.safetensors       encoders and projectors, whole, where the base's folder does not hold them
    vertebra.json           the base's id and fingerprint, growths, prompt builder, statistics
    tokenizer files

`load_adapter` restores exactly this on a fresh base: growths are replayed, and a wrong base is an error.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vertebra.backbone.habits import check_fingerprint
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.saving import record
from vertebra.backbone.source import RECORD, read_json
from vertebra.backbone.vocabulary import Growth, regrow
from vertebra.errors import CheckpointError, ConfigError, VertebraError
from vertebra.folders import require_free, write_whole
from vertebra.multimodal.describe import holds_parts
from vertebra.multimodal.kinds import part_from, part_record
from vertebra.multimodal.model import MultimodalModel
from vertebra.reading import as_object, reading, reason
from vertebra.tune.choose import is_adapter
from vertebra.tune.fingerprint import BasePrint, check_base
from vertebra.tune.lora import LANGUAGE, Adapter, has_adapter, peft_quiet, require_peft
from vertebra.tune.parts import Parts, parts_of

FOLDER = "lora_adapter"
TRAINED = "trained.safetensors"
PARTS = "parts.safetensors"


def save_adapter(
    model: Any, adapter: Adapter, folder: str | Path, *, extra: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write an adapter, whole or not at all. `extra` joins the record: what a policy knows (action statistics)."""
    folder = Path(folder)
    require_free(folder, overwrite=overwrite)
    return write_whole(folder, lambda part: write_adapter(model, adapter, part, extra=extra), replace=True)


def write_adapter(model: Any, adapter: Adapter, folder: Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """The files of an adapter into a folder that exists (a checkpoint writes its own around them)."""
    parts = parts_of(model)
    for name, root in adapter.roots.items():
        inside = folder / _folder(name)
        inside.mkdir()
        save_file(adapter_tensors(root), inside / "adapter_model.safetensors", metadata={"format": "pt"})
        config = root.peft_config["default"]
        was = config.inference_mode, config.base_model_name_or_path
        config.inference_mode = True
        if name == LANGUAGE and parts.backbone is not None:
            config.base_model_name_or_path = parts.backbone.hf_hub_path
        config.save_pretrained(inside)
        config.inference_mode, config.base_model_name_or_path = was
    brought = _brought(model)
    trained = [n for n, p in model.named_parameters() if p.requires_grad and not is_adapter(n)]
    _save({n: p for n, p in model.named_parameters() if n in trained and _part_of(n) not in brought}, folder / TRAINED)
    _save(_whole_parts(model, brought), folder / PARTS)
    about: dict[str, Any] = {"record": getattr(model, "record", {}), **(extra or {})}
    if parts.backbone is not None:
        about |= record(parts.backbone)
        parts.backbone.tokenizer.save_pretrained(folder)
    about["adapter"] = {
        "base": asdict(adapter.base),
        "roots": list(adapter.roots),
        "trained": trained,
        "parts": {name: part_record(model.parts[name]) for name in brought},
    }
    (folder / RECORD).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def adapter_tensors(root: Any) -> dict[str, torch.Tensor]:
    """An adapter's tensors under the names that PEFT saves."""
    import peft

    with peft_quiet():
        # by default PEFT would add both whole matrices once the vocabulary has grown
        tensors = peft.get_peft_model_state_dict(root, save_embedding_layers=False)
    kept = {name: tensor for name, tensor in tensors.items() if is_adapter(name)}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}


def load_adapter(
    base: Any, folder: str | Path, *, trainable: bool = False, name: str = "", **options: Any
) -> tuple[Any, Adapter]:
    """Put a saved adapter on its base (a model, or the id or folder of one); returns the model and the adapter.

    The base may be ungrown: recorded growths that it lacks are replayed. Statistics, prompt builder and tokenizer habits
    are those of the training. `options` are `load_backbone`'s, where the base is loaded here.
    """
    folder = Path(folder)
    about = read_adapter_record(folder)
    who = name or str(folder)
    model, brought = _with_parts(_loaded(base, options), folder, about["adapter"].get("parts", {}), who)
    parts = parts_of(model)
    if has_adapter(model):
        raise CheckpointError(f"`{who}`: the base has an adapter already; load the base anew, or merge the first one")
    _refuse_merged(parts, folder, who)
    with reading(f"what `{who}` tells of its base in {RECORD} is damaged", "save the adapter again"):
        told = BasePrint(**about["adapter"]["base"])
        base_print = check_base(parts, told, who=who, brought=brought)
    if parts.backbone is not None:
        with reading(f"the backbone in {RECORD} of `{who}` is damaged", "save the adapter again"):
            _replay(parts.backbone, about["backbone"], who)
    roots = {root: _load_root(parts, root, folder / _folder(root), trainable) for root in about["adapter"]["roots"]}
    full = _spelled(model, about["adapter"].get("trained", ()))
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable and (is_adapter(parameter_name) or parameter_name in full))
    _load_trained(model, folder, who=who)
    if hasattr(model, "record"):
        model.record.update(about.get("record", {}))
    known = ("format", "backbone", "versions", "adapter")
    return model, Adapter(roots=roots, base=base_print, about={k: v for k, v in about.items() if k not in known})


def read_adapter_record(folder: str | Path) -> dict[str, Any]:
    """What an adapter's folder says of itself; one clear message where it is none."""
    folder = Path(folder)
    inside = folder / FOLDER
    if not folder.is_dir():
        raise CheckpointError(f"`{folder}` is no folder; expected one with `{FOLDER}/` in it")
    missing = [
        str(path.relative_to(folder))
        for path in (folder / RECORD, inside / "adapter_config.json", inside / "adapter_model.safetensors")
        if not path.is_file()
    ]
    if missing:
        raise CheckpointError(f"`{folder}` is no adapter of ours: {', '.join(missing)} missing")
    about = read_json(folder / RECORD)
    if "adapter" not in about:
        raise CheckpointError(f"`{folder / RECORD}` tells of no adapter; `{folder}` is a whole model, not an adapter")
    told = as_object(about["adapter"], f"`adapter` of `{folder / RECORD}`")
    as_object(about.get("record", {}), f"`record` of `{folder / RECORD}`")
    as_object(told.get("parts", {}), f"`parts` of `{folder / RECORD}`")
    for name in ("roots", "trained"):
        listed = told.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(one, str) and "/" not in one for one in listed):
            raise CheckpointError(f"`{name}` of `{folder / RECORD}` is {listed!r:.80}; expected a list of names")
    if "roots" not in told:
        raise CheckpointError(f"`{folder / RECORD}` does not say what its adapter adapts (`roots`); save it again")
    return about


def adapter_digest(folder: str | Path) -> str:
    """A hash of an adapter's tensors: how a merged model remembers what was merged into it."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob(f"{FOLDER}*/adapter_model.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _folder(root: str) -> str:
    return FOLDER if root == LANGUAGE else f"{FOLDER}.{root}"


def _refuse_merged(parts: Parts, folder: Path, who: str) -> None:
    where = Path(getattr(parts.backbone, "hf_hub_path", "")) / RECORD
    merged = read_json(where).get("merged", []) if where.is_file() else []
    if adapter_digest(folder) in merged:
        raise CheckpointError(f"`{who}` is merged into `{where.parent}` already; merging it twice would double it")


def _replay(backbone: Any, recorded: Mapping[str, Any], who: str) -> None:
    """Growths that the base has not seen, and the tokenizer's fingerprint afterwards."""
    wanted = [Growth.from_json(entry) for entry in recorded["growths"]]
    for done, growth in enumerate(backbone.growths):
        if done >= len(wanted) or growth.to_json() != wanted[done].to_json():
            raise CheckpointError(
                f"`{who}` was trained with the added tokens {[list(g.tokens) for g in wanted]}; the base has "
                f"{[list(g.tokens) for g in backbone.growths]}. Load the base as it was, without growing it"
            )
    for growth in wanted[len(backbone.growths) :]:
        regrow(backbone, growth)
    check_fingerprint(backbone.tokenizer, recorded["fingerprint"], who)
    if recorded.get("prompt_builder"):
        backbone._builder = recorded["prompt_builder"]


def _load_root(parts: Parts, root: str, folder: Path, trainable: bool) -> Any:
    peft = require_peft()
    module = parts.lm if root == LANGUAGE else parts.module(root)
    if module is None:
        raise CheckpointError(f"`{folder}` is an adapter for {root}, which this model does not have")
    try:
        load_file(folder / "adapter_model.safetensors")
        with peft_quiet():
            config = peft.PeftConfig.from_pretrained(str(folder))
            config.inference_mode = not trainable
            return peft.PeftModel.from_pretrained(module, str(folder), config=config, is_trainable=trainable)
    except VertebraError:
        raise
    except Exception as error:  # PEFT reads a foreign config, and has errors of every kind
        raise CheckpointError(f"the adapter in `{folder}` cannot be loaded: {reason(error)}") from error


def _load_trained(model: Any, folder: Path, *, who: str) -> None:
    tensors = _read(folder / TRAINED)
    tensors = dict(zip(_spelled(model, tensors), tensors.values(), strict=True))
    named = dict(model.named_parameters())
    unknown = sorted(n for n, t in tensors.items() if n not in named or named[n].shape != t.shape)
    if unknown:
        raise CheckpointError(
            f"`{who}` holds trained tensors that the base has not, or not so: {', '.join(unknown[:4])}"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            named[name].copy_(tensor)


def _spelled(model: Any, names: Iterable[str]) -> list[str]:
    """Names of a backbone's tensors as this model has them: it may stand alone, or be part of a model."""
    alone = hasattr(model, "llm")
    if alone:
        return [name.removeprefix("backbone.") for name in names]
    return [f"backbone.{name}" if name.startswith("llm.") else name for name in names]


def _loaded(base: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(base, (str, Path)):
        if options:
            raise ConfigError(f"{', '.join(options)}: the base is loaded already; give these where it is loaded")
        return base
    return MultimodalModel.load(base, **options) if holds_parts(base) else load_backbone(base, **options)


def _brought(model: Any) -> list[str]:
    """The parts of a model that the folder of its base does not hold, so that the adapter's must."""
    if not len(getattr(model, "parts", ())):
        return []
    where = Path(getattr(model.backbone, "hf_hub_path", "")) / RECORD
    held = read_json(where).get("parts", {}) if where.is_file() else {}
    return [name for name in model.parts if name not in held]


def _part_of(name: str) -> str:
    """The part that a tensor belongs to, by its name; empty for the backbone's."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "parts" else ""


def _whole_parts(model: Any, brought: Collection[str]) -> dict[str, torch.Tensor]:
    """Every tensor of these parts by its name without an adapter."""
    return {
        f"parts.{name}.{key.replace('.base_layer.', '.')}": tensor
        for name in brought
        for key, tensor in model.parts[name].state_dict().items()
        if not is_adapter(f".{key}")
    }


def _with_parts(model: Any, folder: Path, described: Mapping[str, Any], who: str) -> tuple[Any, list[str]]:
    """The base with the parts that the adapter's folder brings, filled; and their names."""
    if not described:
        return model, []
    if hasattr(model, "llm"):
        model = MultimodalModel(model, {})
    for name, entry in described.items():
        if name not in model.parts:
            model.parts[name] = part_from(entry, where=f"part `{name}` of `{who}`").to(
                model.device, model.backbone.dtype
            )
    tensors = _read(folder / PARTS)
    named = {name: tensor for name, tensor in model.state_dict().items() if _part_of(name) in described}
    wrong = sorted(set(tensors) ^ set(named)) or [n for n, t in named.items() if t.shape != tensors[n].shape]
    if wrong:
        raise CheckpointError(f"the parts in `{folder / PARTS}` do not fit the base's: {', '.join(wrong[:4])}")
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(tensors[name])
    return model, list(described)


def _save(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    if tensors:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that is only there where there was something to keep."""
    with reading(f"`{file}` is damaged"):
        return load_file(file) if file.is_file() else {}

"""The two doors to a backbone, and the tables behind them that users can add to.

    load_backbone("llama2-7b-pure")      an id of the table
    load_backbone("tiny-qwen2.5")        a tiny real checkpoint, made in the user's cache
    load_backbone("path/or/org/name")    anything else; its own facts find the family, or are read off it

Listing ids needs no torch: classes are resolved when something loads.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.backbone.families.models import FAMILIES, MODELS, Family, ModelRow, builder_name, row_named
from vertebra.backbone.garbage import without_search
from vertebra.backbone.real import fetched
from vertebra.backbone.source import RECORD, find, left_by_run, looks_like_a_path
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import ConfigError, UnknownNameError, VertebraError, shortened

if TYPE_CHECKING:
    from vertebra.backbone.causal import HFCausalLLMBackbone

# The ids that tiny checkpoints are treated as when a prompt builder is chosen.
_TINY_KIND = ("-instruct", "-pure", "")


def register_family(family: Family) -> Family:
    """Add a family to the table; its name must be new."""
    if family.name in FAMILIES:
        raise ConfigError(f"family `{family.name}` exists already. Families: {', '.join(FAMILIES)}")
    FAMILIES[family.name] = family
    return family


def register_model(model_id: str, *, family: str, hub: str | Path) -> ModelRow:
    """Add a model to the table: an id, its family, and a hub name or folder."""
    if model_id in MODELS or model_id in TINY:
        raise ConfigError(f"id `{model_id}` exists already{_where(model_id)}; choose another")
    if family not in FAMILIES:
        raise UnknownNameError("family", family, FAMILIES)
    MODELS[model_id] = ModelRow(model_id, family, str(hub))
    return MODELS[model_id]


def _where(model_id: str) -> str:
    row = MODELS.get(model_id)
    return f" (family `{row.family}`, {row.hub})" if row else " (a tiny checkpoint)"


def model_ids() -> list[str]:
    """Every id that `load_backbone` knows by heart, tiny ones last."""
    return [*MODELS, *TINY]


def row_of(name: str) -> ModelRow | None:
    """The row of an id, tiny ones made on the way; None for a folder or hub name."""
    if name in MODELS:
        row, here = MODELS[name], fetched(name)
        return row if here is None else replace(row, hub=str(here))
    if name in TINY:
        return ModelRow(name, TINY[name].family, str(tiny_checkpoint(name)))
    return None


def tiny_builder(name: str) -> str:
    """The prompt builder of a tiny checkpoint: its family's instruct form where there is one."""
    family = FAMILIES[TINY[name].family]
    kind = next(kind for kind in _TINY_KIND if any(mark in kind or not mark for mark, _ in family.builders))
    return builder_name(family, name + kind)


def require_name(name: str | Path) -> None:
    """Refuse a name that is no id, no folder and no hub name. It asks no network, and imports no torch."""
    text = str(name)
    if text in MODELS or text in TINY:
        return
    try:
        local = Path(text).expanduser().exists()
        if not text.strip() or ("/" not in text and not local):
            raise UnknownNameError(
                "model id", text, model_ids(), hint="Or give a folder, or a hub name like `org/name`."
            )
        left = left_by_run(text)
        if (local and not _may_be_adapter(Path(left).expanduser())) or (not local and looks_like_a_path(text)):
            find(left)
    except VertebraError:
        raise
    except OSError as error:  # a name too long, or a folder that may not be looked into
        raise ConfigError(
            f"`{shortened(text)}` cannot be a model: {error.strerror}. Give an id, a folder, or a hub name like `org/name`"
        ) from error


def _may_be_adapter(folder: Path) -> bool:
    """Whether a folder without a config of its own has a record: whoever loads adapters looks into it."""
    records = (RECORD, "adapter_config.json")
    return not (folder / "config.json").is_file() and any((folder / name).is_file() for name in records)


@without_search()
def load_backbone(
    name: str | Path,
    *,
    llm_max_length: int = 2048,
    hf_token: str | None = None,
    inference_mode: bool = False,
    weights: str | Path | bool = False,
    use_flash_attention_2: bool = False,
    attn: str | None = None,
    dtype: Any = None,
    device: Any = None,
    quantization: str | None = None,
    builder: str | None = None,
    family: str | None = None,
    config_overrides: Mapping[str, Any] | None = None,
) -> HFCausalLLMBackbone:
    """A backbone by id, folder or hub name; of a run, what it left in `model/`.

    A folder's record, name, class and vocabulary find its family; `family` names another, and `none` reads the facts off
    the model.

    In inference mode the structure comes without weights, as a larger checkpoint brings them; `weights=True` maps the
    model's own in at once, and a folder maps those.
    """
    require_name(name)  # before torch is imported for it
    from vertebra.backbone.causal import HFCausalLLMBackbone
    from vertebra.backbone.families import CLASSES

    if weights and not inference_mode:
        raise ConfigError("`weights` belongs to inference mode; training mode always loads pretrained weights")
    options: dict[str, Any] = {
        "llm_max_length": llm_max_length,
        "hf_token": hf_token,
        "inference_mode": inference_mode,
        "use_flash_attention_2": use_flash_attention_2,
        "attn": attn,
        "dtype": dtype,
        "device": device,
        "quantization": None if weights else quantization,
        "builder": builder,
        "config_overrides": dict(config_overrides or {}),
    }
    row = row_of(str(name))
    if row is None:
        name = left_by_run(name)
    if family is not None:
        _check_family(family, row)
    backbone: HFCausalLLMBackbone
    if row is not None and row.id in MODELS and row.family in CLASSES:
        backbone = CLASSES[row.family](row.id, **options)
    else:
        backbone = HFCausalLLMBackbone(**_arguments(name, row, family, hf_token), **_with_builder(row, options))
    if weights:
        backbone.load_weights(None if weights is True else weights)
        if quantization is not None:
            backbone.quantize(quantization)
    return backbone


def _with_builder(row: ModelRow | None, options: dict[str, Any]) -> dict[str, Any]:
    if row is None or row.id not in TINY or options["builder"] is not None:
        return options
    return {**options, "builder": tiny_builder(row.id)}


def _check_family(family: str, row: ModelRow | None) -> None:
    from vertebra.backbone.facts import NO_FAMILY

    if family not in FAMILIES and family != NO_FAMILY:
        raise UnknownNameError("family", family, [*FAMILIES, NO_FAMILY])
    if row is not None and family != row.family:
        raise ConfigError(
            f"`{row.id}` is of the family `{row.family}`, and not of `{family}`; name a family for a folder or hub name"
        )


def _arguments(name: str | Path, row: ModelRow | None, family: str | None, token: str | None) -> dict[str, Any]:
    """Id, family, class and place of a model; for a folder or hub name they are read from its files."""
    from vertebra.backbone.saving import read_record
    from vertebra.backbone.structure import causal_class, class_named

    text = str(name)
    if row is not None:
        llm_cls = class_named(FAMILIES[row.family].llm_cls)
        return {"llm_backbone_id": row.id, "llm_family": row.family, "llm_cls": llm_cls, "hf_hub_path": row.hub}
    source = find(text, token=token)
    recorded, llm_cls = read_record(source), causal_class(source)
    if family in FAMILIES and FAMILIES[family].llm_cls != llm_cls.__name__:
        alike = [row.name for row in FAMILIES.values() if row.llm_cls == llm_cls.__name__]
        raise ConfigError(
            f"family `{family}` is of {FAMILIES[family].llm_cls}; `{text}` is a {llm_cls.__name__}, as "
            f"{', '.join(f'`{one}`' for one in alike) or 'no family'} {'is' if len(alike) == 1 else 'are'}"
        )
    known = row_named(text) if not source.local else None
    return {
        "llm_backbone_id": recorded.get("id", text),
        "llm_family": family or recorded.get("family") or (known.family if known and known.hub == text else None),
        "llm_cls": llm_cls,
        "hf_hub_path": text,
    }


def get_llm_backbone_and_tokenizer(
    llm_backbone_id: str,
    llm_max_length: int = 2048,
    hf_token: str | None = None,
    inference_mode: bool = False,
    **options: Any,
) -> tuple[HFCausalLLMBackbone, Any]:
    """The historical door: a backbone and its tokenizer. Takes every option of `load_backbone`."""
    known = [name for name, one in inspect.signature(load_backbone).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise UnknownNameError("option", option, known)
    backbone = load_backbone(
        llm_backbone_id,
        llm_max_length=llm_max_length,
        hf_token=hf_token,
        inference_mode=inference_mode,
        **options,
    )
    return backbone, backbone.get_tokenizer()

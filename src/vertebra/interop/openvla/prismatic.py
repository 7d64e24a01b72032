"""Runs of prismatic's own training: `config.json` with a name of a table, weights as one `.pt` of nested state dicts.

    {"model": {"vision_backbone": {"dino_featurizer.…", "siglip_featurizer.…"}, "projector": {"projector.0.…"},
               "llm_backbone": {"llm.…"}}}                       ──►  the names of Hugging Face's form

    RUN/config.json   dataset_statistics.json   checkpoints/step-….pt, latest-checkpoint.pt

What a run does not hold is in tables here: what a base's name means, and how its image encoders prepare images. Config and
tokenizer of the language model come from its id, or from a folder.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vertebra.backbone.registry import row_of
from vertebra.backbone.source import find
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError
from vertebra.interop.openvla import towers as timm
from vertebra.interop.openvla.folder import (
    CHECKPOINTS,
    CONFIG,
    PREPROCESSOR,
    STATISTICS,
    OpenVLAFacts,
    read_statistics,
    run_of,
    small_files,
)
from vertebra.interop.openvla.found import FoundFolder
from vertebra.interop.openvla.names import FEATURIZERS
from vertebra.interop.openvla.options import ImportOptions
from vertebra.reading import as_object, read_json, reading

LATEST = "latest-checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class Vision:
    """A vision backbone of prismatic's: timm ids in the order of their features, and the side of their images."""

    timm: tuple[str, ...]
    size: int
    prefixes: tuple[str, ...] = ("featurizer.",)
    """What the names of their tensors begin with."""


_DINO, _SIGLIP = "vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_"
_CLIP = "vit_large_patch14_clip_"
VISION: dict[str, Vision] = {
    "clip-vit-l": Vision(timm=(f"{_CLIP}224.openai",), size=224),
    "clip-vit-l-336px": Vision(timm=(f"{_CLIP}336.openai",), size=336),
    "siglip-vit-so400m": Vision(timm=(f"{_SIGLIP}224",), size=224),
    "siglip-vit-so400m-384px": Vision(timm=(f"{_SIGLIP}384",), size=384),
    "dinov2-vit-l": Vision(timm=(_DINO,), size=224),
    "dinoclip-vit-l-336px": Vision(
        timm=(_DINO, f"{_CLIP}336.openai"), size=336, prefixes=("dino_featurizer.", "clip_featurizer.")
    ),
    **{
        f"dinosiglip-vit-so-{size}px": Vision(
            timm=(_DINO, f"{_SIGLIP}{size}"), size=size, prefixes=("dino_featurizer.", "siglip_featurizer.")
        )
        for size in (224, 384)
    },
}
"""Vision backbones by their ids."""


def _base(vision: str, llm: str, strategy: str, arch: str) -> dict[str, str]:
    return {
        "vision_backbone_id": vision, "llm_backbone_id": llm, "image_resize_strategy": strategy, "arch_specifier": arch
    }  # fmt: skip


_FUSED, _PLAIN = "no-align+fused-gelu-mlp", "no-align+gelu-mlp"
BASES: dict[str, dict[str, str]] = {
    "siglip-224px+7b": _base("siglip-vit-so400m", "vicuna-v15-7b", "letterbox", _PLAIN),
    "dinosiglip-224px-resize-naive+7b": _base("dinosiglip-vit-so-224px", "vicuna-v15-7b", "resize-naive", _FUSED),
    "prism-dinosiglip-224px+7b": _base("dinosiglip-vit-so-224px", "llama2-7b-pure", "resize-naive", _FUSED),
    "prism-dinosiglip-224px-controlled+7b": _base("dinosiglip-vit-so-224px", "llama2-7b-pure", "resize-naive", _FUSED),
    "prism-dinosiglip+7b": _base("dinosiglip-vit-so-384px", "llama2-7b-pure", "resize-naive", _FUSED),
    "prism-dinosiglip+13b": _base("dinosiglip-vit-so-384px", "llama2-13b-pure", "resize-naive", _FUSED),
    "prism-siglip+7b": _base("siglip-vit-so400m-384px", "llama2-7b-pure", "resize-naive", _PLAIN),
    "prism-clip+7b": _base("clip-vit-l-336px", "llama2-7b-pure", "resize-naive", _PLAIN),
    "prism-clip+13b": _base("clip-vit-l-336px", "llama2-13b-pure", "resize-naive", _PLAIN),
}
"""What the base of a policy's run is made of, by its name; a run of a vision-language model says it itself."""
_PROJECTOR = {"0": "fc1", "2": "fc2", "4": "fc3"}


def checkpoint_of(where: Path) -> Path:
    """The checkpoint that is named, or the latest of a run."""
    if where.suffix == ".pt":
        if not where.is_file():
            raise CheckpointError(f"there is no checkpoint `{where}`")
        return where
    latest = where / CHECKPOINTS / LATEST
    steps = sorted(
        (where / CHECKPOINTS).glob("step-*.pt"), key=lambda file: [int(n) for n in re.findall(r"\d+", file.name)]
    )
    if latest.is_file():
        return latest
    if not steps:
        raise CheckpointError(f"`{where / CHECKPOINTS}` holds no checkpoint; expected {LATEST} or step-….pt")
    return steps[-1]


def find_run(where: Path, options: ImportOptions) -> FoundFolder:
    """A run as what `read` builds a model of."""
    run = run_of(where)
    made = _made_of(read_json(run / CONFIG), run)
    vision = VISION.get(made["vision_backbone_id"])
    if vision is None:
        raise UnknownNameError("vision backbone", made["vision_backbone_id"], VISION)
    llm = options.llm or made["llm_backbone_id"]
    parts = _parts(checkpoint_of(where))
    tensors = {**_vision(parts["vision_backbone"], vision), **_rest(parts)}
    text = _text_config(llm, tensors)
    config = {
        **made,
        "timm_model_ids": list(vision.timm),
        "image_sizes": [vision.size] * len(vision.timm),
        "use_fused_vision_backbone": len(vision.timm) > 1,
        "timm_override_act_layers": ["quick_gelu" if "clip" in one else None for one in vision.timm],
        "pad_token_id": text["vocab_size"] - 64,
        "pad_to_multiple_of": 64,
        "text_config": text,
    }
    config |= {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "hf_llm_id": str(llm),
        "n_action_bins": 256,
        "torch_dtype": "bfloat16",
    }
    preprocessor = _preprocessor(made["image_resize_strategy"], vision)
    facts = OpenVLAFacts(
        where=str(where),
        config=config,
        preprocessor=preprocessor,
        statistics=read_statistics(run, {}) if (run / STATISTICS).is_file() else {},
        timm_ids=vision.timm,
        image_sizes=(vision.size,) * len(vision.timm),
        text=text,
    )
    files = {
        **{name: content for name, content in small_files(run).items() if name == STATISTICS},
        CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(),
        PREPROCESSOR: json.dumps(preprocessor, indent=2, sort_keys=True).encode(),
    }
    return FoundFolder(facts=facts, tensors=tensors, llm=llm, files=files)


def _made_of(config: Mapping[str, Any], run: Path) -> dict[str, str]:
    """Vision backbone, language model and image strategy of a run."""
    if isinstance(config.get("model"), dict) and "vision_backbone_id" in config["model"]:
        own = config["model"]
        absent = [name for name in ("llm_backbone_id", "image_resize_strategy", "arch_specifier") if name not in own]
        if absent:
            raise CheckpointError(f"`model` in `{run / CONFIG}` lacks {', '.join(absent)}; copy it again")
        return {name: own[name] for name in _base("", "", "", "")}
    base = as_object(config.get("vla") or {}, f"`vla` in `{run / CONFIG}`").get("base_vlm")
    name = str(base).rstrip("/").rpartition("/")[2]
    if name not in BASES:
        raise UnknownNameError(
            "base of a prismatic run", base, BASES, hint=f"It is `vla.base_vlm` of `{run / CONFIG}`."
        )
    return BASES[name]


def _parts(file: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of a checkpoint, each by its part; files with more than tensors in them are refused."""
    with reading(
        f"`{file}` holds more than plain tensors, or is damaged; it is not opened, since unpickling can run code",
        "convert it where you trust it",
    ):
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    given = loaded.get("model") if isinstance(loaded, dict) else None
    whole = given if isinstance(given, dict) else {}
    needed = ("vision_backbone", "projector", "llm_backbone")
    absent = [name for name in needed if not isinstance(whole.get(name), dict)]
    if absent:
        raise CheckpointError(
            f"`{file}` has no state of {', '.join(absent)} under `model`; expected a prismatic checkpoint"
        )
    if whole.get("downsampler"):
        raise CheckpointError(f"`{file}` has a downsampler, which no known model of this format has")
    return {name: whole[name] for name in needed}


def _vision(tensors: Mapping[str, torch.Tensor], vision: Vision) -> dict[str, torch.Tensor]:
    """Towers under the names of Hugging Face's form; layer scales are `gamma` here."""
    found = {}
    for name, tensor in tensors.items():
        number = next((n for n, prefix in enumerate(vision.prefixes) if name.startswith(prefix)), None)
        stem = FEATURIZERS[number] if number is not None else "vision_backbone."
        own = name.removeprefix(vision.prefixes[number]) if number is not None else name
        found[stem + re.sub(r"\.gamma$", ".scale_factor", own)] = tensor
    return found


def _rest(parts: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Projector and language model under the names of Hugging Face's form."""
    found = {}
    for name, tensor in parts["projector"].items():
        layer = re.fullmatch(r"projector\.(\d+)\.(weight|bias)", name)
        own = f"{_PROJECTOR[layer[1]]}.{layer[2]}" if layer and layer[1] in _PROJECTOR else name
        found[f"projector.{own}"] = tensor
    for name, tensor in parts["llm_backbone"].items():
        found["language_model." + name.removeprefix("llm.")] = tensor
    return found


def _text_config(llm: str | Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the language model's id says of it, with the rows that the checkpoint has."""
    row = row_of(str(llm))
    try:
        config = find(row.hub if row else llm).config
    except (CheckpointError, ConfigError, ConnectionError) as error:
        raise CheckpointError(
            f"config and tokenizer of the language model `{llm}` are not in the run, and cannot be had: {error}. Give a "
            "folder that holds them: llm=…, or --llm"
        ) from error
    embedding = tensors.get("language_model.model.embed_tokens.weight")
    rows = config.get("vocab_size") if embedding is None else len(embedding)
    return {**config, "vocab_size": rows, "dtype": "bfloat16"}


def _preprocessor(strategy: str, vision: Vision) -> dict[str, Any]:
    rows = [timm.tower_named(one) for one in vision.timm]
    side = [vision.size, vision.size] if strategy == "resize-naive" else vision.size
    boxed = strategy == "letterbox"
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "processor_class": "PrismaticProcessor",
        "use_fused_vision_backbone": len(rows) > 1,
        "image_resize_strategy": strategy,
        "input_sizes": [[3, vision.size, vision.size] for _ in rows],
        "interpolations": ["bicubic"] * len(rows),
        "means": [list(row.mean) for row in rows],
        "stds": [list(row.std) for row in rows],
        "tvf_resize_params": [{"size": side, "interpolation": 3, "antialias": True, "max_size": None} for _ in rows],
        "tvf_crop_params": [{"output_size": [vision.size, vision.size]} for _ in rows],
        "tvf_normalize_params": [{"mean": list(row.mean), "std": list(row.std), "inplace": False} for row in rows],
        "tvf_do_letterbox": boxed,
        "tvf_letterbox_fill": [int(value * 255) for value in rows[-1].mean] if boxed else None,
    }

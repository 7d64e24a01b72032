"""The shape of a model without its weights: from a small table for the best known, from its config for all others."""

from __future__ import annotations

from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError

from vertebra.backbone.families.models import FAMILIES
from vertebra.backbone.registry import row_of
from vertebra.backbone.source import find
from vertebra.backbone.structure import causal_class, class_named
from vertebra.data.encode.masked_model import encoder_tokenizer
from vertebra.errors import ConfigError
from vertebra.model.encoders.vision import VisionTower

# hub name -> (class, what differs from its config's own defaults), so that planning them needs no network
_LLAMA = ("LlamaForCausalLM", {"vocab_size": 32064, "num_key_value_heads": None})
_WIDE = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama/Llama-2-7b-hf": _LLAMA,
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA,
    "lmsys/vicuna-7b-v1.5": _LLAMA,
    "meta-llama/Llama-2-13b-hf": (
        "LlamaForCausalLM",
        {
            **_LLAMA[1],
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "intermediate_size": 13824,
        },
    ),
    "meta-llama/Llama-2-70b-hf": ("LlamaForCausalLM", {**_WIDE, "vocab_size": 32064, "intermediate_size": 28672}),
    "meta-llama/Llama-3.1-8B": (
        "LlamaForCausalLM",
        {"vocab_size": 128256, "num_key_value_heads": 8, "intermediate_size": 14336},
    ),
    "meta-llama/Llama-3.1-70B": ("LlamaForCausalLM", {**_WIDE, "vocab_size": 128256, "intermediate_size": 28672}),
    "mistralai/Mistral-7B-v0.1": ("MistralForCausalLM", {"vocab_size": 32000}),
    "microsoft/phi-2": (
        "PhiForCausalLM",
        {
            "hidden_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 10240,
            "vocab_size": 51200,
        },
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "LlamaForCausalLM",
        {
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    ),
}
# The same for vision towers: (config, image size).
TOWERS: dict[str, tuple[dict[str, Any], int]] = {
    "dinov2-small": (
        {
            "model_type": "dinov2",
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "patch_size": 14,
            "image_size": 518,
        },
        224,
    ),
    "google/siglip-so400m-patch14-224": (
        {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 224,
        },
        224,
    ),
    "facebook/dinov2-with-registers-large": (
        {
            "model_type": "dinov2_with_registers",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 518,
        },
        224,
    ),
}


# How settings are named that count something no model is without.
_SIZES = ("_size", "_layers", "_heads", "_dim")


def shape_of(name: str, overrides: dict[str, Any], *, masked: bool = False) -> tuple[Any, Any]:
    """(model class, its config) of a backbone by id, folder or hub name, with overrides."""
    row = None if masked else row_of(name)
    model_cls: Any
    hub = row.hub if row is not None else name
    if hub in KNOWN:
        family, settings = KNOWN[hub]
        model_cls = class_named(family)
        shape = model_cls.config_class(**settings)
    elif masked:
        model_cls, shape = _encoder(hub)
    else:
        source = find(hub)
        model_cls = class_named(FAMILIES[row.family].llm_cls) if row is not None else causal_class(source)
        text = source.config.get("text_config") or source.config
        shape = model_cls.config_class(**{k: v for k, v in text.items() if k not in ("dtype", "torch_dtype")})
    for key, value in overrides.items():
        if not hasattr(shape, key):
            raise ConfigError(f"model.overrides: {type(shape).__name__} has no `{key}`")
        if key.endswith(_SIZES) and isinstance(value, (int, float)) and not value >= 1:
            raise ConfigError(f"model.overrides: `{key}` is {value!r}; expected 1 or more")
        try:
            setattr(shape, key, value)
        except (ValueError, TypeError, StrictDataclassError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f"model.overrides: `{key}` cannot be {value!r}: {reason}") from error
    assert isinstance(shape, transformers.PreTrainedConfig)
    return model_cls, shape


def _encoder(name: str) -> tuple[Any, Any]:
    """The class and config of a masked model."""
    config = encoder_tokenizer(name)[1]
    return transformers.AutoModelForMaskedLM._model_mapping[type(config)], config


def tower_shape(name: str) -> dict[str, Any]:
    """What `VisionTower` needs for the structure of a pretrained tower."""
    if name in TOWERS:
        config, size = TOWERS[name]
        return {"config": config, "image_size": size, "name": name}
    return VisionTower.described(name)

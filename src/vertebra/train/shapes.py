"""The shape of a model without its weights: from a small table for the best known, from its config for all others."""

from __future__ import annotations

from typing import Any

import transformers

from vertebra.backbone.families.table import FAMILIES
from vertebra.backbone.registry import row_of
from vertebra.backbone.source import find
from vertebra.backbone.structure import causal_class, class_named
from vertebra.errors import ConfigError

# hub name -> what differs from the config class's own defaults, so that planning them needs no network
_LLAMA = {"vocab_size": 32064, "num_key_value_heads": None}
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {**_LLAMA},
    "meta-llama/Llama-2-7b-chat-hf": {**_LLAMA},
    "lmsys/vicuna-7b-v1.5": {**_LLAMA},
    "meta-llama/Llama-2-13b-hf": {
        **_LLAMA,
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "intermediate_size": 13824,
    },
    "mistralai/Mistral-7B-v0.1": {"vocab_size": 32000},
    "microsoft/phi-2": {
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "vocab_size": 51200,
    },
}


def shape_of(name: str, overrides: dict[str, Any]) -> tuple[Any, Any]:
    """(model class, its config) of a backbone by id, folder or hub name, with overrides."""
    row = row_of(name)
    model_cls: Any
    hub = row.hub if row is not None else name
    if row is not None and hub in KNOWN:
        model_cls = class_named(FAMILIES[row.family].llm_cls)
        shape = model_cls.config_class(**KNOWN[hub])
    else:
        source = find(hub)
        model_cls = class_named(FAMILIES[row.family].llm_cls) if row is not None else causal_class(source)
        text = source.config.get("text_config") or source.config
        shape = model_cls.config_class(**{k: v for k, v in text.items() if k not in ("dtype", "torch_dtype")})
    for key, value in overrides.items():
        if not hasattr(shape, key):
            raise ConfigError(f"model.overrides: {type(shape).__name__} has no `{key}`")
        setattr(shape, key, value)
    assert isinstance(shape, transformers.PreTrainedConfig)
    return model_cls, shape

"""Mistral: the historical class and its table."""

from __future__ import annotations

from typing import Any

from transformers import MistralForCausalLM

from vertebra.backbone.families.historical import HistoricalBackbone, table_of

MISTRAL_MODELS: dict[str, dict[str, Any]] = table_of("mistral", MistralForCausalLM)


class MistralLLMBackbone(HistoricalBackbone):
    """Mistral 7B and Nemo (`-pure`, `-instruct`)."""

    models = MISTRAL_MODELS

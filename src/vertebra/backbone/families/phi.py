"""Phi-2: the historical class and its table."""

from __future__ import annotations

from typing import Any

from transformers import PhiForCausalLM

from vertebra.backbone.families.historical import HistoricalBackbone, table_of

PHI_MODELS: dict[str, dict[str, Any]] = table_of("phi", PhiForCausalLM)


class PhiLLMBackbone(HistoricalBackbone):
    """Phi-2, whose prompt builder writes the BOS that its tokenizer does not."""

    models = PHI_MODELS

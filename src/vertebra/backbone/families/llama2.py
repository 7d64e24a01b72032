"""LLaMA-2 and Vicuna 1.5: the historical class and its table."""

from __future__ import annotations

from typing import Any

from transformers import LlamaForCausalLM

from vertebra.backbone.families.historical import HistoricalBackbone, table_of

LLAMA2_MODELS: dict[str, dict[str, Any]] = table_of("llama2", LlamaForCausalLM)


class LLaMa2LLMBackbone(HistoricalBackbone):
    """LLaMA-2 (`-pure`, `-chat`) and Vicuna 1.5; `<PAD>` is always added, and rows are padded to a multiple of 64."""

    models = LLAMA2_MODELS

"""What differs between families, as tables; the three historical classes are thin and add nothing of their own."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`CLASSES`, the family's own class by its name, is made on first use: the tables alone need no torch."""
    if name != "CLASSES":
        raise AttributeError(name)
    from vertebra.backbone.families.llama2 import LLaMa2LLMBackbone
    from vertebra.backbone.families.mistral import MistralLLMBackbone
    from vertebra.backbone.families.phi import PhiLLMBackbone

    return {"llama2": LLaMa2LLMBackbone, "mistral": MistralLLMBackbone, "phi": PhiLLMBackbone}

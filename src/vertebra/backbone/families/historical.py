"""What the three historical classes share: a table of ids, and a constructor that takes an id alone.

Their names and signatures are those that OpenVLA-era code imports; everything else is in `HFCausalLLMBackbone`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.backbone.families.models import MODELS
from vertebra.errors import UnknownNameError


def table_of(family: str, llm_cls: type) -> dict[str, dict[str, Any]]:
    """The rows of one family in the historical form."""
    return {
        row.id: {"llm_family": family, "llm_cls": llm_cls, "hf_hub_path": row.hub}
        for row in MODELS.values()
        if row.family == family
    }


class HistoricalBackbone(HFCausalLLMBackbone):
    """A backbone that is named by an id of its family's table."""

    models: ClassVar[dict[str, dict[str, Any]]]

    def __init__(
        self,
        llm_backbone_id: str,
        llm_max_length: int = 2048,
        hf_token: str | None = None,
        inference_mode: bool = False,
        use_flash_attention_2: bool = False,
        **options: Any,
    ) -> None:
        row = self.models.get(llm_backbone_id) or _registered(llm_backbone_id, self.models)
        super().__init__(
            llm_backbone_id,
            llm_max_length=llm_max_length,
            hf_token=hf_token,
            inference_mode=inference_mode,
            use_flash_attention_2=use_flash_attention_2,
            **row,
            **options,
        )


def _registered(llm_backbone_id: str, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A model that a user registered after the table was made."""
    any_row = next(iter(models.values()))
    row = MODELS.get(llm_backbone_id)
    if row is None or row.family != any_row["llm_family"]:
        raise UnknownNameError(f"{any_row['llm_family']} model", llm_backbone_id, models)
    return {**any_row, "hf_hub_path": row.hub}

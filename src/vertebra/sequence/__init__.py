"""The one token sequence: its vectors, masks, packing, batches and loss. It has nothing to do with where tokens come from."""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "roles": "Role NO_TARGET VALUE_TARGET",
        "batch": "uncollate",
        "branches": "branched tail_of",
        "masks": "AttentionFacts AttentionPlan plan_attention",
        "packing": "pack_sequences",
        "loss": "sequence_loss supervised_positions token_losses count_items value_weights",
        "probe": "mask_takes_effect",
    },
)

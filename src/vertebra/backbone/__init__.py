"""Any causal language model behind one interface: families as data, loading, vocabulary, tiny real checkpoints.

It uses transformers and tokenizers, and no images, decoding or training.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "families.models": "Family",
        "habits": "fingerprint",
        "facts": "attention_facts",
        "head": "head_of",
        "real": "fetched",
        "tiny": "TINY tiny_checkpoint write_tiny write_hub_cache",
    },
)

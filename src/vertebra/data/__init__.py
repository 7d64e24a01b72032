"""From raw text, tables and conversations to exact batches: sources, formats, encoders, mixtures, loaders.

    from vertebra.data import Reading, batches       the usual chain in one call

Reads the world and writes token sequences; it does not know the insides of models. The way through is `open_source`
(rows with file and line) → a `Reader` (what a row means) → an encoder → `prepare` (a table of token sequences, cached) →
a `Loader` (batches that can be resumed). Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "batches": "vertebra.tasks.chain",  # the chain as a kind of work has it
    "Reading": "vertebra.data.reading",
    "ModelFacts": "vertebra.data.model_facts",
    "open_source": "vertebra.data.read.open",
    "register_format": "vertebra.data.read.formats",
    "Labels": "vertebra.data.read.labels",
    "Mixture": "vertebra.data.samples.mixture",
    "TableMixture": "vertebra.data.samples.mixture",
    "Blocks": "vertebra.data.samples.causal",
    "Windows": "vertebra.data.samples.causal",
    "prepare": "vertebra.data.encode.prepare",
    "TextEncoder": "vertebra.data.encode.encoders",
    "WordEncoder": "vertebra.data.encode.encoders",
    "ChatEncoder": "vertebra.data.encode.chat",
    "ImageFeatures": "vertebra.data.encode.chat",
    "PairEncoder": "vertebra.data.encode.pairs",
    "KeyTokens": "vertebra.data.encode.keytokens",
    "Masking": "vertebra.data.encode.masks",
    "masked_blocks": "vertebra.data.encode.masks",
    "load_masked_lm": "vertebra.data.encode.masked_model",
    "load_classifier": "vertebra.data.encode.classifier",
    "Collator": "vertebra.data.loaders.collate",
    "InOrder": "vertebra.data.loaders.samplers",
    "Shuffled": "vertebra.data.loaders.samplers",
    "LengthGrouped": "vertebra.data.loaders.samplers",
    "Packed": "vertebra.data.loaders.samplers",
    "Loader": "vertebra.data.loaders.loader",
    "StreamLoader": "vertebra.data.loaders.stream",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        from vertebra.errors import did_you_mean

        raise AttributeError(f"module 'vertebra.data' has no attribute '{name}'.{did_you_mean(name, _HOME)}")
    return getattr(importlib.import_module(home), name)

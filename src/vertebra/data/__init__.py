"""From raw text, tables and conversations to exact batches: sources, formats, encoders, mixtures, loaders.

    from vertebra.data import Reading, batches       the usual chain in one call

Reads the world and writes token sequences; it does not use the insides of models. The way through is `open_source`
(rows with file and line) → a `Reader` (what a row means) → an encoder → `prepare` (a table of token sequences, cached) →
a `Loader` (batches that can be resumed).
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        ".tasks.chain": "batches",  # the chain as a kind of work has it
        "reading": "Reading",
        "model_facts": "ModelFacts",
        "read.open": "open_source",
        "read.formats": "register_format",
        "read.labels": "Labels",
        "read.corpus": "corpus_split",
        "samples.mixture": "Mixture TableMixture",
        "samples.causal": "Blocks Windows",
        "samples.table": "ChunkBuilder Table",
        "encode.prepare": "prepare",
        "encode.encoders": "TextEncoder WordEncoder",
        "encode.chat": "ChatEncoder ImageFeatures",
        "encode.pairs": "PairEncoder",
        "encode.tokens": "TextTokenizer",
        "encode.keytokens": "KeyTokens",
        "encode.masks": "Masked Masking masked_blocks",
        "encode.masked_model": "load_masked_lm",
        "encode.classifier": "load_classifier",
        "loaders.collate": "Collator",
        "loaders.samplers": "InOrder Shuffled LengthGrouped Packed slots_per_token",
        "loaders.loader": "Loader",
        "loaders.stream": "StreamLoader",
    },
)

"""Decoding: right with the cache on, piece by piece (`prefill`, `step`, `fork`, `trim`) or in one call (`generate`).

It knows models and batches; it does not know how prompts are written.
"""

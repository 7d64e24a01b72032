"""From raw text, tables and conversations to exact batches: sources, formats, objectives, mixtures, loaders.

Reads the world and writes token sequences; it does not know the insides of models. The way through is
`sources.open_source` (rows with file and line) → `formats` (what a row means) → an objective (`causal`, `masked`,
`chat`, `pairs`) → `prepare` (a table of token sequences, cached) → `loader.Loader` (batches that can be resumed).
"""

"""The side of decoding that knows transformers: its caches, and its own `generate` as the second engine."""

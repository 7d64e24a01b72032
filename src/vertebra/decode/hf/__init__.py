"""Hugging Face's own `generate` as the second engine, for what only it does."""

"""Samples by number: tables of token sequences, blocks and windows of them, and mixtures."""

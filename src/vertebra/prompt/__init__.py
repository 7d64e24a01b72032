"""Prompts: formats as data, builders that speak turn by turn, and `render`, which makes a `TokenSequence` in one pass.

A tokenizer is two methods to this package. It knows neither models nor torch.
"""

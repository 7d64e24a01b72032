"""Differences between supported transformers versions (5.17 and later), and nothing else.

Everything that reads a version number, or tries a newer name before an older one, stands here, so that the rest of
the house can be written for one library. It does not know our own classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from packaging.version import Version
from transformers import DynamicCache
from transformers.utils import logging as transformers_logging

OLDEST = "5.17"
VERSION = Version(transformers.__version__)

if Version(OLDEST) > VERSION:
    raise ImportError(
        f"vertebra needs transformers >= {OLDEST}; found {transformers.__version__}. Upgrade transformers."
    )


def enable_checkpointing(model: Any) -> None:
    """Recompute activations in the backward pass, by the non-reentrant call.

    The reentrant one gives no gradients when `inputs_embeds` enter a frozen model. 5.23 renamed the method and made
    the old name warn.
    """
    arguments = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=arguments)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments)


def cache_from_pairs(pairs: Any, config: Any) -> DynamicCache:
    """A cache from older code's tuple of (keys, values) per layer; transformers 5 has no converter of its own."""
    cache = DynamicCache(config=config)
    for layer, (keys, values) in enumerate(pairs):
        cache.update(keys, values, layer)
    return cache


# Gemma-2 caps its attention scores, which sdpa cannot: 5.17 offers the kernel all the same and drops the cap.
_SDPA_INEXACT = ("Gemma2ForCausalLM",)


def supports_sdpa(model_cls: type) -> bool:
    """Whether a class has the sdpa kernel, and gives the same numbers with it."""
    return bool(getattr(model_cls, "_supports_sdpa", False)) and model_cls.__name__ not in _SDPA_INEXACT


@contextmanager
def bars_only_in_terminals() -> Iterator[None]:
    """The library draws a progress bar for every load and save; in a log file or a pipe it is noise."""
    if sys.stderr.isatty() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


@contextmanager
def errors_only() -> Iterator[None]:
    """Inside, the library's reports stay quiet: the caller checks what was loaded, and reports it in one message."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)

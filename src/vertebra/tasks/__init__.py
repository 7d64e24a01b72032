"""Kinds of work, one file each: what it reads, what it adds to a model, what a sample is, what is measured and shown.

They stand above data, tuning and decoding, and do not use the trainer.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(__name__, {"config": "DataConfig", "registry": "register_task", "task": "Task"})

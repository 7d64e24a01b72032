"""`optim.precision: auto`: the type in which this machine multiplies fastest, found by a probe of milliseconds.

bf16 products are several times faster than fp32 where the processor has instructions for them, and dozens of times
slower where it has not. The probe multiplies matrices of a small model's sizes in both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from vertebra import config as configs
from vertebra import log
from vertebra.training.config import Precision, RunConfig

WORTH = 1.3
"""From how much faster on bf16 is chosen: below that its rounding buys nothing."""
_ROWS, _INNER, _OUTER, _TIMES = 256, 576, 1536, 3


def resolved(config: RunConfig, *, recorded: Path | None = None) -> RunConfig:
    """The config with a precision in place of `auto`; a choice that is slow here is reported in one line.

    recorded: the `run.yaml` of a run that goes on, which then keeps its precision.
    """
    asked = config.optim.precision
    if asked == "auto" and recorded is not None and recorded.is_file():
        asked = configs.read_mapping(recorded).get("optim", {}).get("precision", asked)
        config = replace(config, optim=replace(config.optim, precision=asked))
    if asked not in ("auto", "bf16") or (asked == "bf16" and torch.cuda.is_available()):
        return config
    faster = speed_of_bf16()
    if asked == "bf16":
        if faster < 1:
            log.warn(
                f"optim.precision=bf16: this machine multiplies {1 / faster:.0f} × slower in bf16 than in fp32; give fp32, "
                "or `auto`, which chooses"
            )
        return config
    chosen: Precision = "bf16" if faster >= WORTH else "fp32"
    log.info(f"optim.precision=auto: {chosen} (bf16 products take {1 / faster:.2f} × the time of fp32 ones here)")
    return replace(config, optim=replace(config.optim, precision=chosen))


def speed_of_bf16() -> float:
    """How many times faster products are in bf16 than in fp32, on the device that trains."""
    if torch.cuda.is_available():
        return 8.0 if torch.cuda.is_bf16_supported(including_emulation=False) else 0.1
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(_ROWS, _INNER, generator=generator).to(dtype)
    matrix = torch.randn(_OUTER, _INNER, generator=generator).to(dtype)
    F.linear(rows, matrix)
    best = float("inf")
    for _ in range(_TIMES):
        begun = time.perf_counter()
        F.linear(rows, matrix)
        best = min(best, time.perf_counter() - begun)
    return best

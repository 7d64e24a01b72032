"""Which attention kernel and which 16- or 32-bit type a model runs in: chosen once, logged once, readable afterwards.

It knows what the installed libraries can do; it does not load anything.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from vertebra import compat, log
from vertebra.errors import ConfigError, MissingPartError, UnknownNameError

KERNELS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float64": torch.float64,
    "fp64": torch.float64,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def choose_kernel(llm_cls: type, *, attn: str | None, use_flash_attention_2: bool) -> str:
    """The kernel to load with. What was asked by name must exist; `use_flash_attention_2` falls back with one warning."""
    native = "sdpa" if compat.supports_sdpa(llm_cls) else "eager"
    if attn is not None:
        if use_flash_attention_2 and attn != "flash_attention_2":
            raise ConfigError(f"attn=`{attn}` and use_flash_attention_2=True contradict each other; give one of them")
        return _by_name(llm_cls, attn)
    if not use_flash_attention_2:
        return native
    lacking = _why_no_flash(llm_cls, "flash_attn")
    if lacking is None:
        return "flash_attention_2"
    log.warn_once(f"flash-attention 2 was requested, but {lacking}; `{native}` is used instead")
    return native


def _by_name(llm_cls: type, attn: str) -> str:
    if attn not in KERNELS:
        raise UnknownNameError("attention kernel", attn, KERNELS)
    if attn == "sdpa" and not compat.supports_sdpa(llm_cls):
        raise ConfigError(
            f"{llm_cls.__name__} has no exact sdpa kernel in this version of transformers; use attn=`eager`"
        )
    if attn.startswith("flash_attention"):
        package = "flash_attn" if attn.endswith("2") else "flash_attn_interface"
        if importlib.util.find_spec(package) is None:
            raise MissingPartError(f"attn=`{attn}`", package.replace("_", "-"))
        lacking = _why_no_flash(llm_cls, package)
        if lacking is not None:
            raise ConfigError(f"attn=`{attn}` cannot be used: {lacking}")
    return attn


def _why_no_flash(llm_cls: type, package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"the package `{package}` is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if not getattr(llm_cls, "_supports_flash_attn", False):
        return f"{llm_cls.__name__} does not support it"
    return None


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A type by its name, `bf16` or `bfloat16` or `torch.bfloat16`."""
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    return _DTYPES[name]


def as_device(device: str | int | torch.device | None) -> torch.device | None:
    """A device that this machine has; None where nobody chose one."""
    if device is None:
        return None
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UnknownNameError("device", device, here) from error
    if found.type in ("cuda", "mps") and not any(f"{name}:".startswith(f"{found}:") for name in here):
        raise ConfigError(f"there is no device `{found}` on this machine, as torch sees it; it has {', '.join(here)}")
    return found


def default_dtype(config: dict[str, Any], *, inference_mode: bool) -> torch.dtype:
    """fp32 to train in (autocast narrows it), the checkpoint's own type to run in: never left to a library's default."""
    if not inference_mode:
        return torch.float32
    text = config.get("text_config", {})
    shipped = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return as_dtype(shipped) if shipped else torch.float32

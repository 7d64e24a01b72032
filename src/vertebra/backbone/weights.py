"""Weights without copies: a structure on the meta device, tensors mapped from safetensors, and one assignment.

A 1 B-parameter checkpoint is ready in a fraction of a second, since nothing is initialised, read or copied before it
is used. Buffers that no checkpoint holds (rotary tables, embedding scales) are made for real from the start.
"""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.backbone.source import weight_files
from vertebra.errors import CheckpointError
from vertebra.reading import reading

BUILDING = threading.RLock()
"""Held while a model is built: transformers and the patch below change global state meanwhile, so that two threads that
load at once would leave ties out or parameters on meta."""

# Ways in which other tools name the same tensors: (what their names begin with, what ours begin with).
_SPELLINGS = (
    ("", ""),
    ("llm.", ""),  # one of our own backbones saved by its state dict
    ("backbone.llm.", ""),  # … or inside a multimodal model
    ("llm_backbone.llm.", ""),  # prismatic
    ("language_model.", ""),  # OpenVLA, LLaVA, older Gemma-3
    ("model.language_model.", "model."),  # vision-language models of transformers 5
)

_DRAWN: tuple[Any, ...] = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
"""Layers that draw their weights when they are made."""


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside, new parameters live on the meta device while buffers are real.

    `torch.device("meta")` would put rotary tables and embedding scales there too, and no checkpoint brings them back.
    Other threads build as ever.
    """
    original = nn.Module.register_parameter
    mine = threading.get_ident()

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta and threading.get_ident() == mine:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
            # drawing random numbers without storage costs more than all the rest; the library skips what has this mark
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        original(module, name, parameter)

    with BUILDING:
        nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
        drawn = {kind: kind.reset_parameters for kind in _DRAWN}
        for kind, draw in drawn.items():
            kind.reset_parameters = _unless_on_meta(draw)
        try:
            yield
        finally:
            nn.Module.register_parameter = original  # type: ignore[method-assign]
            for kind, draw in drawn.items():
                kind.reset_parameters = draw


def _unless_on_meta(draw: Callable[[Any], None]) -> Callable[[Any], None]:
    """A layer's own first numbers, drawn where there is room for them: without it torch takes a slow way to do nothing."""

    def reset(module: Any) -> None:
        if not module.weight.is_meta:
            draw(module)

    return reset


def mapped_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder, mapped from safetensors (nothing is read yet) or loaded from plain `.bin` files."""
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        tensors.update(mapped_file(file) if file.suffix == ".safetensors" else plain_bin(file))
    return tensors


def mapped_file(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, mapped."""
    from safetensors import safe_open

    with reading(f"`{file}` cannot be read"), safe_open(file, framework="pt", device="cpu") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def plain_bin(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a file that torch wrote; one that holds more than tensors is refused."""
    with reading(
        f"`{file}` holds more than plain tensors, or is damaged; it is not opened, since unpickling can run code",
        "convert it to safetensors where you trust it",
    ):
        # files from before torch 1.6 are no zip archives, and cannot be mapped
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(f"`{file}` holds something else than named tensors; expected a state dict")
    return tensors


def spelled_for(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the model's own names: the spelling that finds most of them wins."""
    expected = set(model.state_dict().keys())
    base = getattr(model, "base_model_prefix", "")
    best: dict[str, torch.Tensor] = {}
    for theirs, ours in (*_SPELLINGS, ("", f"{base}.")):  # the last: saved from the bare model, without its head
        named = {ours + name.removeprefix(theirs): value for name, value in tensors.items() if name.startswith(theirs)}
        found = {name: value for name, value in named.items() if name in expected}
        if len(found) > len(best):
            best = found
    return best


def assign(model: Any, tensors: dict[str, torch.Tensor], *, dtype: torch.dtype | None, where: str) -> None:
    """Put mapped tensors into a meta structure (`dtype=None`: in the types they are stored in).

    All faults are reported at once; on any fault nothing is assigned.
    """
    expected = model.state_dict()
    missing = missing_from(model, tensors)
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if missing or wrong:
        raise CheckpointError(_fault_text(where, missing, wrong, len(expected)))
    with torch.no_grad():
        kept = {name: _cast(tensors[name], dtype) for name in expected if name in tensors}
        model.load_state_dict(kept, strict=False, assign=True)
    with BUILDING:
        model.tie_weights()


def missing_from(model: Any, tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names that the model needs and a checkpoint lacks; tied ones may be absent."""
    tied = _tied_names(model)
    return [name for name in model.state_dict() if name not in tensors and name not in tied]


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _tied_names(model: Any) -> set[str]:
    """Names that share another's tensor, and so may be absent from a checkpoint."""
    names: set[str] = set()
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            names.add(name)
        first.setdefault(id(parameter), name)
    return names


def _fault_text(where: str, missing: list[str], wrong: list[str], total: int) -> str:
    lines = [f"the weights in `{where}` do not fit the model; nothing was loaded."]
    if missing:
        lines.append(f"{len(missing)} of {total} tensors are missing: {some(missing)}.")
    if wrong:
        lines.append(f"{len(wrong)} have another shape: {some(wrong)}.")
    lines.append("Expected the checkpoint of the same architecture and size as config.json describes.")
    return " ".join(lines)


def some(names: Sequence[str], count: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def left_on_meta(model: nn.Module) -> list[str]:
    """Names of parameters and buffers that have no storage yet."""
    return [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]

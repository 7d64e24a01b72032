"""How weights start, one parameter at a time, so that no process need hold a whole model to begin with.

    pretrained   the structure on the meta device, tensors mapped from safetensors as they are stored; a cast is made
                 where a parameter is first needed
    scratch      what a model's own initialization does to each parameter is written down on the meta device, and done
                 again with a generator of that parameter's own: no order, and so the same values in every layout

`Late` holds what is not there yet; sharding asks for one layer after the other. It does not know ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

Maker = Callable[[], torch.Tensor]


class Late:
    """Parameters whose values come when they are asked for."""

    def __init__(self) -> None:
        self._makers: dict[int, tuple[nn.Parameter, Maker]] = {}

    def __len__(self) -> int:
        return len(self._makers)

    def put(self, parameter: nn.Parameter, maker: Maker) -> None:
        self._makers[id(parameter)] = (parameter, maker)

    def cast(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Every floating parameter of a model gets this type, when its time comes."""
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dtype != dtype and not parameter.is_meta:
                self.put(parameter, partial(_cast, parameter, dtype))

    @torch.no_grad()
    def ready(self, module: nn.Module) -> None:
        """Make all parameters of a module real; ties stay ties. What was waited with is let go of."""
        made: dict[int, nn.Parameter] = {}
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is None:
                    continue
                if id(parameter) in self._makers:
                    known, maker = self._makers.pop(id(parameter))
                    made[id(known)] = nn.Parameter(maker(), requires_grad=known.requires_grad)
                if id(parameter) in made:
                    part._parameters[name] = made[id(parameter)]


def _cast(parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return parameter.detach().to(dtype)


class _Written(TorchDispatchMode):
    """Notes every change in place of tensors on the meta device, by their storage."""

    def __init__(self, parameters: dict[int, str]) -> None:
        super().__init__()
        self.known = parameters
        self.notes: dict[str, list[tuple[Any, Any, Any, Any]]] = {name: [] for name in parameters.values()}
        self.lost: set[str] = set()
        """Parameters whose values came out of other tensors, which have none here."""

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        out = function(*arguments, **options)
        target = arguments[0] if arguments else None
        if not isinstance(target, torch.Tensor) or not function._schema.is_mutable:
            return out
        name = self.known.get(target.untyped_storage()._cdata)
        if name is not None:
            if any(isinstance(value, torch.Tensor) for value in (*arguments[1:], *options.values())):
                self.lost.add(name)
            view = (target.size(), target.stride(), target.storage_offset())
            self.notes[name].append((function, view, arguments[1:], options))
        return out


def scratch(llm: Any, *, seed: int) -> Late | None:
    """The start of a model on the meta device, by its own rules; None where those cannot be done again one by one."""
    names: dict[int, str] = {}
    for name, parameter in llm.named_parameters():
        names[parameter.untyped_storage()._cdata] = name
        parameter._is_hf_initialized = False  # the mark by which the meta device skipped it
    for module in llm.modules():
        module.__dict__.pop("_is_hf_initialized", None)
    with _Written(names) as written:
        llm.initialize_weights()
    if written.lost or not all(written.notes.values()):
        return None
    late = Late()
    for name, parameter in llm.named_parameters():
        late.put(parameter, partial(_again, written.notes[name], parameter.shape, parameter.dtype, seed, name))
    return late


def _again(notes: Any, shape: torch.Size, dtype: torch.dtype, seed: int, name: str) -> torch.Tensor:
    """One parameter, written from its notes with a generator of its own."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(number)
    made = torch.empty(shape, dtype=dtype)
    for function, view, arguments, options in notes:
        draws = {"generator": generator} if any(a.name == "generator" for a in function._schema.arguments) else {}
        function(made.as_strided(*view), *arguments, **{**options, **draws})
    return made

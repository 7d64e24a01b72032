"""`load_state_dict` on a structure without weights: it copies, as it does everywhere else, instead of doing nothing.

    vlm.llm_backbone.load_state_dict(torch.load(file)["model"]["llm_backbone"])     the order of OpenVLA-era code

torch skips parameters on the meta device with one warning each. Here each gets storage just before its values are
copied, through whichever module they come: the model, the backbone, a whole of which it is a part, or one layer.
It knows no files and no growth; `load_weights` maps files and is the faster way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vertebra.backbone.matrices import num_rows
from vertebra.backbone.weights import BUILDING


def accept_state_dicts(llm: Any) -> None:
    """Let every module of a bare structure take a state dict, whole or in parts."""
    for module in llm.modules():
        if module._parameters:
            module.register_load_state_dict_pre_hook(_make_room)
    llm.register_load_state_dict_pre_hook(_before_all)
    llm.register_load_state_dict_post_hook(_tie_again)


def _make_room(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], *_: Any) -> None:
    """Storage for the module's own parameters that are about to be copied; what is assigned brings its own.

    A tensor of another shape gets none, so that a forward still tells what is missing after torch's error.
    """
    if metadata.get("assign_to_params_buffers"):
        return
    for name, parameter in module.named_parameters(recurse=False):
        given = state_dict.get(prefix + name)
        if not parameter.is_meta or not isinstance(given, torch.Tensor) or given.is_meta:
            continue
        if given.shape == parameter.shape:
            room = nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=parameter.requires_grad)
            torch.utils.swap_tensors(parameter, room)  # the same object, so that a tied head still is the embedding


def _before_all(
    llm: Any,
    state_dict: dict[str, Any],
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Complete tied names, which files hold once; say what to do about base rows."""
    names: dict[int, list[str]] = {}
    for name, parameter in llm.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(prefix + name)
    for shared in names.values():
        given = next((state_dict[name] for name in shared if name in state_dict), None)
        for name in shared if given is not None else ():
            state_dict.setdefault(name, given)  # torch's own copy of the caller's dictionary
    embedding = llm.get_input_embeddings().weight
    for name in names.get(id(embedding), ()) if embedding.ndim == 2 else ():  # while it is sharded it has another shape
        rows = state_dict[name].shape[0] if name in state_dict else num_rows(llm)
        if rows != num_rows(llm):
            errors.append(
                f"{name} has {rows} rows; this model, with its added tokens, has {num_rows(llm)}. A state dict is copied as "
                "it is; `load_weights(folder)` also takes base rows, and grows them"
            )


def _tie_again(llm: Any, incompatible: Any) -> None:
    """`assign=True` makes two parameters of a tied one."""
    head = llm.get_output_embeddings()
    if (
        head is not None
        and getattr(llm.config, "tie_word_embeddings", False)
        and head.weight is not llm.get_input_embeddings().weight
    ):
        with BUILDING:
            llm.tie_weights()

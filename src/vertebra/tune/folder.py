"""A PEFT folder, whoever wrote it, put on a module strictly: each tensor has its place, and each place its tensor.

    adapter_config.json          what PEFT builds
    adapter_model.safetensors    (or .bin) the tensors of just that

PEFT leaves what is missing as it was drawn at random, and drops what it does not know. Here every such tensor is named
in one error. It knows PEFT and modules, and no backbone.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vertebra import log
from vertebra.backbone.source import read_json
from vertebra.errors import CheckpointError
from vertebra.reading import reading
from vertebra.tune.lora import peft_quiet, require_peft

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_LANGUAGE = "language_model."
# What a config may ask for that happens outside the layers, where a backbone's own forward never comes by.
_OUTSIDE = ("layer_replication", "alora_invocation_tokens", "arrow_config")


def absent_files(folder: Path) -> list[str]:
    """What a PEFT folder must hold and does not."""
    absent = [] if (folder / CONFIG).is_file() else [CONFIG]
    return absent if _weights(folder).is_file() else [*absent, WEIGHTS[0]]


def digest(folders: Iterable[Path]) -> str:
    """A hash of adapters' files of tensors: how a merged model remembers what was merged into it."""
    found = hashlib.sha256()
    for folder in folders:
        with reading(f"the adapter in `{folder}` cannot be read"):
            found.update(_weights(folder).read_bytes())
    return found.hexdigest()[:32]


def put_on(module: Any, folder: Path, *, trainable: bool, rows: int | None = None) -> Any:
    """PEFT's model of the adapter in a folder around `module`, which it changes in place.

    rows: of a language model's tables, how many there were before rows for padding came; the adapter may have so many.
    """
    peft = require_peft()
    config, tensors = _config(peft, folder), tensors_of(folder)
    config.inference_mode = not trainable
    tensors = _without_language_prefix(module, tensors, folder)
    _refuse_absent_rows(module, config, folder)
    kind = peft.PeftModelForCausalLM if config.task_type == "CAUSAL_LM" else peft.PeftModel
    try:
        with _warnings_of(folder), torch.random.fork_rng(devices=[]):
            root = kind(module, config)
            places = _places(root, module)
            if rows is not None:
                tensors = _with_pad_rows(tensors, places, rows, len(module.get_input_embeddings().weight))
            _require_all(root, module, places, tensors, folder)
            peft.set_peft_model_state_dict(root, tensors)
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"the adapter in `{folder}` cannot be put on a {type(module).__name__}: {error}. Name the base that it was "
            "trained on"
        ) from error
    return root


def saved_tensors(root: Any, *, tables: bool = False) -> dict[str, torch.Tensor]:
    """An adapter's tensors under the names that PEFT saves; `tables`: embedding and head too, which it may add."""
    peft = require_peft()
    with peft_quiet():
        # it takes an adapter's own bias for a matrix that lost a dimension
        warnings.filterwarnings("ignore", message="Adapter .* LoRA tensor.* invalid shape")
        return peft.get_peft_model_state_dict(root, save_embedding_layers=tables)


def replaced(root: nn.Module) -> list[tuple[str, Any]]:
    """The modules that PEFT put in the place of others, by name; of nested ones the outermost."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: list[tuple[str, Any]] = []
    for name, module in root.named_modules():
        inside = bool(found) and name.startswith(found[-1][0] + ".")  # a parent comes before its children
        if not inside and isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            found.append((name, module))
    return found


def put_back(root: nn.Module, name: str, module: nn.Module) -> None:
    """Set a plain module where one of PEFT's stands."""
    stem, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(stem), leaf, module)


def take_out(root: nn.Module) -> None:
    """Take an adapter out again, and leave what it stood on."""
    for name, module in replaced(root):
        put_back(root, name, module.get_base_layer() if hasattr(module, "get_base_layer") else module.original_module)
    forget(root)


def forget(root: nn.Module) -> None:
    """The marks that PEFT leaves on a model itself."""
    for mark in ("peft_config", "_hf_peft_config_loaded", "active_adapter"):
        if mark in vars(root):
            delattr(root, mark)


def _weights(folder: Path) -> Path:
    """The file of tensors; the first name where there is none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in an adapter's folder."""
    file = _weights(folder)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"the adapter in `{folder}` cannot be loaded: {error}") from error


def _config(peft: Any, folder: Path) -> Any:
    """The config of a LoRA for a language model or a part of one; what else PEFT can do is refused by its name."""
    plain = read_json(folder / CONFIG)
    kind, task = plain.get("peft_type"), plain.get("task_type")
    if kind != "LORA":
        raise CheckpointError(f"`{folder / CONFIG}` describes an adapter of the type {kind}; LORA can be loaded here")
    if task not in (None, "CAUSAL_LM", "FEATURE_EXTRACTION"):
        raise CheckpointError(
            f"the adapter in `{folder}` was made for {task}, with a head that a language model does not have; expected "
            "one for CAUSAL_LM"
        )
    asked = [name for name in _OUTSIDE if plain.get(name)]
    if asked:
        raise CheckpointError(
            f"the adapter in `{folder}` uses {', '.join(asked)}, which PEFT does outside the layers; it runs in PEFT alone"
        )
    try:
        with _warnings_of(folder):
            return peft.LoraConfig.from_pretrained(str(folder))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"`{folder / CONFIG}` cannot be read by PEFT {peft.__version__}: {error}") from error


@contextmanager
def _warnings_of(folder: Path) -> Iterator[None]:
    """What PEFT warns of goes to the log, and no further."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not issubclass(warning.category, (FutureWarning, DeprecationWarning)):  # between PEFT and transformers
            log.info(f"PEFT on `{folder}`: {warning.message}")


def _without_language_prefix(module: Any, tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """An adapter that was trained on the language model inside a larger one, for that language model alone."""
    outer = _PREFIX + _LANGUAGE
    if hasattr(module, _LANGUAGE.rstrip(".")) or not any(name.startswith(outer) for name in tensors):
        return tensors
    others: dict[str, int] = {}
    for name in tensors:
        if not name.startswith(outer):
            path = name.removeprefix(_PREFIX).partition(".lora_")[0].split(".")
            part = ".".join(path[: 2 if len(path) > 2 else 1])
            others[part] = others.get(part, 0) + 1
    if others:
        mapped = read_json(folder / CONFIG).get("auto_mapping") or {}
        made_for = mapped.get("base_model_class", "a model that sees")
        listing = ", ".join(f"{part} ({count})" for part, count in others.items())
        raise CheckpointError(
            f"the adapter in `{folder}` was trained on {made_for}: {len(tensors) - sum(others.values())} of its tensors "
            f"belong to a language model ({_LANGUAGE}*), and {sum(others.values())} to parts that a "
            f"{type(module).__name__} does not have: {listing}. Load it onto the whole model that it was trained on"
        )
    return {_PREFIX + name.removeprefix(outer): tensor for name, tensor in tensors.items()}


def _refuse_absent_rows(module: Any, config: Any, folder: Path) -> None:
    """Rows of tokens that the base does not have yet; PEFT would fail on the index alone."""
    indices = getattr(config, "trainable_token_indices", None)
    if not indices:
        return
    highest = max(max(rows, default=-1) for rows in (indices.values() if isinstance(indices, dict) else [indices]))
    rows = len(module.get_input_embeddings().weight)
    if highest >= rows:
        raise CheckpointError(
            f"the adapter in `{folder}` trains the row of token {highest}, and the base has {rows} rows: its vocabulary was "
            "grown first. Add the same tokens with grow_vocabulary(backbone, [...]), and give the grown backbone as base"
        )


def _places(root: Any, module: Any) -> dict[str, torch.Tensor]:
    """Where saved tensors may go, whole tables of a language model included, which PEFT adds where it deems it right."""
    needed = saved_tensors(root)
    is_lm = getattr(module, "get_output_embeddings", lambda: None)() is not None
    return {**(saved_tensors(root, tables=True) if is_lm else {}), **needed}


def _with_pad_rows(
    tensors: dict[str, torch.Tensor], places: Mapping[str, torch.Tensor], before: int, now: int
) -> dict[str, torch.Tensor]:
    """Tensors that were trained before a pad token came, with rows for it: the base's own, and no change of them."""
    grown = dict(tensors)
    for name, tensor in tensors.items():
        place = places.get(name)
        if place is None or place.ndim != tensor.ndim:
            continue
        along = [i for i, (was, size) in enumerate(zip(tensor.shape, place.shape, strict=True)) if was != size]
        if len(along) == 1 and (tensor.shape[along[0]], place.shape[along[0]]) == (before, now):
            if now < before:  # the pad dropped spare rows, which no token has
                grown[name] = tensor.narrow(along[0], 0, now)
                continue
            rest = place.narrow(along[0], before, now - before)
            rest = torch.zeros_like(rest) if _DELTA.search(name) else rest
            grown[name] = torch.cat([tensor, rest.detach().to("cpu", tensor.dtype)], along[0])
    return grown


_DELTA = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\b")


def _require_all(
    root: Any, module: Any, places: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Every tensor that is missing, left over, or not what its place takes, in one error."""
    needed = saved_tensors(root)
    missing = [name for name in needed if name not in tensors]
    extra = [name for name in tensors if name not in places]
    wrong = [
        f"{name} {fault}" for name, t in tensors.items() if name in places and (fault := fault_of(t, places[name]))
    ]
    faults = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("that belong nowhere", extra), ("wrong", wrong))
        if names
    ]
    if faults:
        hint = "Name the base that it was trained on" if extra or wrong else "Copy or save it again"
        raise CheckpointError(
            f"the tensors of the adapter in `{folder}` do not fit a {type(module).__name__} with its {CONFIG} "
            f"({len(needed)} expected). {'. '.join(faults)}. {hint}"
        )


def fault_of(tensor: torch.Tensor, place: torch.Tensor) -> str:
    """What is wrong with a saved tensor for its place; empty where nothing is."""
    if tensor.shape != place.shape:
        return f"is {tuple(tensor.shape)}, expected {tuple(place.shape)}"
    if place.is_floating_point() and not tensor.is_floating_point():
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, expected real numbers"
    return (
        ""
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
        else "holds numbers that are not finite"
    )

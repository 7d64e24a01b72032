"""A model that came from an OpenVLA folder, written back in its form: every tensor under its old name, in its old type.

What was kept aside goes back where it was, small files byte for byte; config and statistics follow the model where it has
other statistics now. A folder of ours holds no code, and so does what is written: whoever loads it with the original's
classes has those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vertebra.action.record import POLICY
from vertebra.backbone.kernels import as_dtype
from vertebra.backbone.tensorfile import SHARD, save_shards
from vertebra.backbone.tokenizers import save_tokenizer
from vertebra.errors import CheckpointError, ConfigError
from vertebra.folders import require_free, write_whole
from vertebra.interop.openvla import names, oft
from vertebra.interop.openvla.folder import CONFIG, STATISTICS
from vertebra.interop.openvla.read import RECORD
from vertebra.reading import json_of
from vertebra.sequence.length import listed

DDP = "module."


def write_openvla(model: Any, out: str | Path, *, overwrite: bool = False, largest: int = SHARD) -> Path:
    """Write a model into a folder of its original's form, whole or not at all; `largest`: bytes of one shard."""
    out = Path(out).expanduser()
    require_writable(model)
    require_free(out, overwrite=overwrite)
    return write_whole(out, lambda part: _fill(model, part, largest), replace=True)


def require_writable(model: Any) -> None:
    """Refuse what the form has no place for, all of it at once."""
    if RECORD not in model.record or names.IMAGE not in model.parts:
        raise CheckpointError(
            f"`{model.identifier}` did not come from an OpenVLA folder, and the form has no place for anything else; write "
            "it with `save`"
        )
    faults = [f"{count} tensors of an adapter (merge it first)"] if (count := _adapters(model)) else []
    grown = [token for growth in model.backbone.growths for token in growth.tokens if not growth.is_pad]
    faults += [f"{len(grown)} tokens that were added ({grown[0]} …)"] if grown else []
    known = {names.IMAGE, "proprio", "action"}
    faults += [f"a part `{name}`" for name in model.parts if name not in known]
    faults += [
        f"a head `{name}` of the kind {head.kind}"
        for name, head in model.heads.items()
        if head.kind not in ("l1", "ddim")
    ]
    if faults:
        raise ConfigError(f"an OpenVLA folder has no place for {listed(faults)}")


def _adapters(model: Any) -> int:
    return sum("lora_" in name for name, _ in model.named_parameters())


def _fill(model: Any, part: Path, largest: int) -> None:
    files = dict(model.aside.files)
    config = json_of(files.get(CONFIG, b"{}"))
    if not isinstance(config, dict) or "text_config" not in config:
        raise CheckpointError(f"the model's own {CONFIG} of its original is missing; import it again")
    dtype = as_dtype(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    named = [*tensors_of(model), *model.aside.tensors.items()]
    tensors = {name: tensor.detach().to(dtype) for name, tensor in named}
    film = any(tower.reads_text for tower in names.towers_of(model.parts[names.IMAGE]))
    # OFT's loader reads towers with FiLM from a file of their own, into a model that was loaded without it
    save_shards({n: t for n, t in tensors.items() if not (film and names.is_film(n))}, part, largest=largest)
    if film:
        towers = {name: tensor.clone() for name, tensor in tensors.items() if name.startswith(oft.WRAPPED)}
        torch.save(oft.wrapped(towers, model.record[RECORD].get("rank")), part / _file_of(model, oft.VISION))
    files |= _statistics(model, config, files)
    for name, content in files.items():
        (part / name).write_bytes(content)
    if "tokenizer_config.json" not in files:
        save_tokenizer(model.tokenizer, part)
    _write_extras(model, part, dtype)


def tensors_of(model: Any) -> list[tuple[str, torch.Tensor]]:
    """The model's tensors under their names; a tied head once."""
    kinds = tuple(model.record[RECORD]["kinds"])
    tied = getattr(model.backbone.llm.config, "tie_word_embeddings", False)
    skipped = f"{names.LANGUAGE}lm_head.weight" if tied else ""
    return [(name, tensor) for name, tensor in names.written(model, kinds) if name != skipped]


def _statistics(model: Any, config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Config and statistics, where the model's differ from those that are there."""
    now = model.record.get(POLICY, {}).get("statistics", {})
    changed = {}
    if STATISTICS in files:
        if json_of(files[STATISTICS]) != now:
            changed[STATISTICS] = _json(now)
    elif now and config.get("norm_stats") != now:
        changed[CONFIG] = _json({**config, "norm_stats": now})
    return changed


def _write_extras(model: Any, part: Path, dtype: torch.dtype) -> None:
    """OFT's files beside the model, each under the name it came with."""
    for kind, state in _extras(model).items():
        tensors = {DDP + name: tensor.detach().to(dtype).clone() for name, tensor in state.items()}
        torch.save(tensors, part / _file_of(model, kind))


def _file_of(model: Any, kind: str) -> str:
    """The name under which one of OFT's files came."""
    return str(model.record[RECORD].get("files", {}).get(kind, f"{kind}--0_checkpoint.pt"))


def _extras(model: Any) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each of OFT's files, under its names."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    if "proprio" in model.parts:
        found[oft.PROPRIO] = model.parts["proprio"].projector.state_dict()
    for head in model.heads.values():
        state = head.state_dict()
        noisy = {n.removeprefix("noisy."): tensor for n, tensor in state.items() if n.startswith("noisy.")}
        found[oft.HEAD] = {n: tensor for n, tensor in state.items() if not n.startswith("noisy.")}
        found |= {oft.NOISY: noisy} if noisy else {}
    return found


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()

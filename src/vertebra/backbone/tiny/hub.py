"""Tiny checkpoints laid out as a Hugging Face hub cache, so that the real hub names load without a network.

models--meta-llama--Llama-2-7b-hf/
    refs/main                     the commit
    snapshots/<commit>/…          the files
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from vertebra.backbone.tiny.checkpoints import TINY, TINY_ENCODERS
from vertebra.backbone.tiny.write import tiny_checkpoint, tiny_spec
from vertebra.errors import ConfigError
from vertebra.folders import write_whole


def write_hub_cache(folder: str | os.PathLike[str], names: Mapping[str, str] | None = None) -> Path:
    """Put the tiny checkpoint `names[hub_name]` under each hub name; without names, every one under its own.

    Give the returned folder as `cache_dir`, or as `$HF_HUB_CACHE`, together with `$HF_HUB_OFFLINE=1`. Names that are
    there already stay; one that held another checkpoint now points to the new one.
    """
    if names is None:
        names = {spec.hub_name: name for name, spec in {**TINY, **TINY_ENCODERS}.items()}
    for hub_name, tiny_name in names.items():
        tiny_spec(tiny_name)
        parts = hub_name.split("/")
        if len(parts) > 2 or not all(parts) or "--" in hub_name or hub_name.startswith("."):
            raise ConfigError(f"`{hub_name}` is no hub name; expected `organization/name`, as `facebook/opt-125m`.")
    folder = Path(folder)
    for hub_name, tiny_name in names.items():
        _write_repository(folder / ("models--" + hub_name.replace("/", "--")), hub_name, tiny_checkpoint(tiny_name))
    return folder


def _write_repository(repository: Path, hub_name: str, source: Path) -> None:
    commit = hashlib.sha1(f"{hub_name} {source.name}".encode()).hexdigest()
    snapshot = repository / "snapshots" / commit
    if not snapshot.is_dir():
        write_whole(snapshot, lambda part: shutil.copytree(source, part, dirs_exist_ok=True), replace=False)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)

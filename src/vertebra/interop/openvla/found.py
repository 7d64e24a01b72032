"""`Found`: a folder of OpenVLA's kin as it was found, whichever of its forms it has; what a model is built of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vertebra.interop.openvla.folder import OpenVLAFacts
from vertebra.interop.openvla.oft import Extras


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFolder:
    """A folder as it was found: its facts, and its tensors under the names of Hugging Face's form."""

    facts: OpenVLAFacts
    tensors: Mapping[str, torch.Tensor]
    llm: str | Path
    """Where config and tokenizer of the language model are."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    extras: Extras | None = None
    """What OFT put beside it; None for other folders."""
    merged: tuple[str, ...] = ()
    """Marks of the adapters that are in the tensors."""

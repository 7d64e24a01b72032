"""Whether parts and heads fit a backbone: their widths, and slots that somebody fills. It knows no weights and no files."""

from __future__ import annotations

from collections.abc import Mapping

from vertebra.backbone.interface import LLMBackbone
from vertebra.errors import ConfigError
from vertebra.model.encoding import AnyPart, serving
from vertebra.model.fresh import entering_width
from vertebra.model.heads.interface import ActionHead
from vertebra.sequence.length import listed


def require_fit(backbone: LLMBackbone, parts: Mapping[str, AnyPart], heads: Mapping[str, ActionHead]) -> None:
    """Refuse parts and heads of other widths than the backbone's, all of them in one error."""
    if not parts and not heads:
        backbone.require_members()
        return
    width = backbone.embedding_width
    faults = [f"`{name}` makes embeddings of width {part.width}" for name, part in parts.items() if part.width != width]
    if faults:
        raise ConfigError(
            f"{listed(faults)}; the embedding matrix of `{backbone.identifier}` has {width} columns "
            "(`backbone.embedding_width`)"
        )
    wide = entering_width(backbone)
    for name, head in heads.items():
        part = serving(parts, name)
        if head.width not in (None, wide):
            faults.append(
                f"`{name}` reads hidden states of width {head.width}, and those that leave the model have {wide}"
            )
        if part is None:
            faults.append(f"`{name}` has no part of its name, which fills its {head.slots} slots (`new_queries`)")
        elif part.slots != head.slots:
            faults.append(f"`{name}` takes {head.slots} slots for a chunk, and its part has {part.slots}")
    if faults:
        raise ConfigError(f"heads that do not fit `{backbone.identifier}`: {listed(faults)}")

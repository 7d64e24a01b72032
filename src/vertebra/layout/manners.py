"""The manners in which a page's boxes enter a sequence, a row each.

    doclaylm   ▣×196  Total 9.50 ▢ ↵ …      DocLayLLM: the picture's patches, then text, one box slot a line
    laytext    ▢ Total 9.50 ↵ …             LayTextLLM: the box comes before its text
    added      Total⁺ 9.50⁺ ↵ …             the box is added to the embeddings of its tokens; no position is spent
    text       Total 9.50 ↵ …               words alone

A manner says where the slots of boxes stand; whether a picture comes first is the record's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vertebra.errors import UnknownNameError

MannerName = Literal["doclaylm", "laytext", "added", "text"]
BOXES = "boxes"
"""The segment of boxes."""
IMAGE = "image"
"""The segment of pages' pictures."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """One of the ways in which boxes enter."""

    slot: Literal["after", "before", "none"]
    """Where the slot of a line's box stands."""
    added: bool = False
    """Whether boxes are added to tokens."""
    does: str

    @property
    def boxes(self) -> bool:
        """Whether the model has a part for boxes at all."""
        return self.added or self.slot != "none"

    @property
    def place(self) -> Literal["slots", "added"]:
        """How the part of the boxes enters, in the words of `model.Part`."""
        return "added" if self.added else "slots"


MANNERS: dict[str, Manner] = {
    "doclaylm": Manner(slot="after", does="a line's text, then one slot of its box"),
    "laytext": Manner(slot="before", does="one slot of its box, then a line's text"),
    "added": Manner(slot="none", added=True, does="boxes added to the tokens that they belong to"),
    "text": Manner(slot="none", does="words alone"),
}
"""The manners by name."""


def manner_named(name: str) -> Manner:
    if name not in MANNERS:
        raise UnknownNameError("manner of pages", name, MANNERS)
    return MANNERS[name]

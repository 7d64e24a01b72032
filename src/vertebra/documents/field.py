"""A field of a schema: its name, of which kind its values are, and what is allowed of them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["text", "number", "integer", "date", "datetime", "time", "boolean", "choice", "record", "list"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field; records have `fields`, lists an `item`."""

    name: str
    kind: Kind = "text"
    description: str = ""
    question: str = ""
    """Asked as it stands, in place of a question made of the name."""
    required: bool = False
    """It must be there; its absence is reported."""
    free: bool = False
    """Its text is written by the model, and need not stand on the page."""
    across: bool = False
    """Its text may run over the ends of lines."""
    choices: tuple[Any, ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)
    """What a value must satisfy: `pattern`, `minimum`, `maxItems` …"""
    fields: tuple[Field, ...] = ()
    item: Field | None = None

    @property
    def asked(self) -> str:
        """Its name in words, and its description."""
        words = " ".join(self.name.replace("_", " ").replace("-", " ").split()) or self.name
        return f"{words} ({self.description})" if self.description else words

    @property
    def nested(self) -> bool:
        """Whether it holds other fields."""
        return self.kind in ("record", "list")

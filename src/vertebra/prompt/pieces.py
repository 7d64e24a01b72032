"""A prompt laid out as pieces: text with who says it, whether it is trained on, and whether it may hold added tokens.

Builders write pieces, rendering reads them; the string of a prompt is their text joined.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vertebra.prompt.content import Content, Splice, Stretch
from vertebra.prompt.conversation import ROLES, Message
from vertebra.sequence.roles import Role

End = Literal["closed", "open", "answer"]
"""How a prompt ends: with the last text; with the mark that opens an answer; inside the last answer."""


@dataclass(slots=True)  # not frozen, as `Content`
class PromptPiece:
    """A stretch of a prompt: a mark of the format (`plain` is False), or what a message says."""

    text: str
    role: Role
    weight: float = 0.0
    plain: bool = False
    splices: tuple[tuple[int, Splice], ...] = ()
    pages: tuple[Stretch, ...] = ()
    content: bool = False

    @classmethod
    def of(cls, message: Message, content: Content) -> PromptPiece:
        """The piece of a message; `content` is its content as the format shows it."""
        return cls(
            content.text,
            ROLES[message.role],
            message.weight,
            message.plain,
            content.splices,
            content.pages,
            True,
        )


def text_of(pieces: Iterable[PromptPiece]) -> str:
    return "".join([piece.text for piece in pieces])


def until_last_content(pieces: list[PromptPiece]) -> list[PromptPiece]:
    """The pieces up to the last that a message says, without the marks that close it."""
    last = max((number for number, piece in enumerate(pieces) if piece.content), default=-1)
    return pieces[: last + 1]

"""When a row ends, and why: end ids, stop strings, a complete constraint, time, length, or the caller's own word.

It looks at tokens and text; it does not know models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from vertebra.decode.allowed import ids_of
from vertebra.decode.choose.constraint import Follower
from vertebra.decode.choose.text import StopStrings
from vertebra.decode.settings import ROWS, DecodeConfig
from vertebra.errors import GenerationError


class Ends:
    """The ends of one call's rows."""

    def __init__(
        self,
        settings: DecodeConfig,
        eos: Sequence[int],
        tokenizer: Any,
        before: Sequence[Sequence[int]],
        follower: Follower | None,
        begin: float,
    ) -> None:
        self._eos = frozenset(eos)
        self._follower = follower
        self._until = None if settings.max_time is None else begin + settings.max_time
        self._strings = [StopStrings(tokenizer, settings.stops, ids) for ids in before] if settings.stops else []
        self.reasons: dict[int, str] = {}
        """Rows that have ended."""

    def note(self, row: int, token: int) -> str | None:
        """Why a row ends with this token; None where it goes on."""
        complete = self._follower is not None and self._follower.advance(row, token)
        found = self._strings[row].add(token) if self._strings else False
        if token in self._eos:
            return "eos"
        if complete:
            return "constraint"
        return "stop string" if found else None

    @property
    def time_is_over(self) -> bool:
        return self._until is not None and time.perf_counter() >= self._until

    def end(self, row: int, reason: str) -> None:
        self.reasons[row] = reason

    def all_of(self, rows: Sequence[int]) -> bool:
        """Whether all of these rows have ended."""
        return all(row in self.reasons for row in rows)


def ids_in(settings: DecodeConfig, backbone: Any, vocabulary: int) -> tuple[tuple[int, ...], int]:
    """(the ids that end a row, the pad id) of a call, once every id in its settings is one of the head's."""
    for name in settings.differing:
        if name in ROWS and ROWS[name].ids:
            for ids in ids_of(getattr(settings, name)):
                _checked(ids, vocabulary, name)
    eos = backbone.eos_token_ids if settings.eos_token_id is None else settings.eos_token_id
    pad_id = backbone.pad_token_id if settings.pad_token_id is None else settings.pad_token_id
    return _checked(eos, vocabulary, "eos_token_id"), pad_id


def _checked(value: Any, vocabulary: int, name: str) -> tuple[int, ...]:
    """Ids that the head can say, or an error that names the option."""
    ids = ids_of(value)
    wrong = [item for item in ids if not 0 <= item < vocabulary]
    if wrong:
        raise GenerationError(
            f"{name} holds {wrong[0]}; the head has the ids 0 to {vocabulary - 1}, and never chooses it"
        )
    return tuple(dict.fromkeys(ids))

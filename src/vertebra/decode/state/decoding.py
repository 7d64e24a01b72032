"""`DecodeState`: everything that is known between two steps: the columns so far, their cache, the last logits.

    prefill(model, batch)      a state whose columns are computed (or the first `upto` of them)
    state.advance(stop)        more of the columns that were given
    state.step(tokens)         one token a row
    state.extend(sequences)    several new columns a row: a question after a page
    state.fork([0] * 20)       another state with these rows; what is cached is shared
    state.trim(length)         forget the columns from `length` on

Nothing is kept on the model: any number of states of one model can take turns. It does not know how tokens are chosen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from vertebra.decode.state import cache as caches
from vertebra.decode.state.checks import check_prompt, check_room
from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.columns import ColumnPiece, cut_columns, joined, with_steps
from vertebra.decode.state.compiled import CompiledStep
from vertebra.decode.state.inputs import encoded, inputs_of
from vertebra.decode.state.language import LAST, Requested, Seen
from vertebra.decode.state.ready import Ready
from vertebra.decode.state.step_masks import StepMasks
from vertebra.errors import GenerationError
from vertebra.sequence.batch import Batch
from vertebra.sequence.masks import SLIDING, Attend, plan_attention

AHEAD = 256
"""Positions of that many steps are made at a time."""


class Pass(NamedTuple):
    """One call of the language model."""

    kind: str
    """`prefill`, `extend`, `step` or `parallel`."""
    rows: int
    columns: int
    cached: int
    """Columns in the cache before it."""
    seconds: float


class DecodeState:
    """Columns, their cache, and the logits of the last one. Made by `prefill`; steps change it in place."""

    def __init__(
        self,
        prompt: Ready,
        cache: Any,
        *,
        length: int = 0,
        static_length: int | None = None,
        attend: Attend | None = None,
        pieces: list[ColumnPiece] | None = None,
    ) -> None:
        """`cache`: None keeps nothing; every pass computes the whole row anew: the honest twin, as slow as it sounds."""
        self.model, self.language, self.cache, self.attend = prompt.model, prompt.language, cache, attend
        self.length = length
        """Columns in the cache; 0 where nothing is kept."""
        self.seen: Seen | None = None
        """What the last pass showed."""
        self.passes: list[Pass] = []
        self.static_length = static_length
        self.compiled: CompiledStep | None = None
        """What runs the steps, where they are compiled."""
        self._given, self._layout = prompt.batch, prompt.layout
        self._pieces = pieces or [ColumnPiece(0, prompt.batch, encoded(prompt.model, prompt.batch))]
        self._tail: list[tuple[torch.Tensor, torch.Tensor | None]] = []  # the steps since, not yet joined to the given
        self._whole: Batch | None = None  # both together, where somebody has asked
        self._masks: StepMasks | None = None
        self._positions: tuple[int, torch.Tensor] | None = None

    @property
    def rows(self) -> int:
        return self._given.rows

    @property
    def logits(self) -> torch.Tensor | None:
        """[B, V] of the last column; None before the prompt is complete and after `trim`."""
        return None if self.seen is None else self.seen.logits

    @property
    def num_bytes(self) -> int:
        """What the cache holds, unused room counted."""
        return 0 if self.cache is None else caches.num_bytes(self.cache)

    @property
    def batch(self) -> Batch:
        """Every column that is known, those of the steps included. Looking changes nothing."""
        if not self._tail:
            return self._given
        if self._whole is None or self._whole.length < self._given.length + len(self._tail):
            self._whole = with_steps(self._given, self._tail)
        return self._whole

    @property
    def pieces(self) -> list[ColumnPiece]:
        """The same as they were given, each with what was encoded of it; the steps are more of them."""
        if not self._tail:
            return self._pieces
        batch, start, before = self.batch, self._given.length, self._pieces
        if before[-1].encoded is None:  # ids after ids are one piece
            start, before = before[-1].start, before[:-1]
        return [*before, ColumnPiece(start, cut_columns(batch, start, batch.length), None)]

    @property
    def layout(self) -> ColumnFacts:
        """What the columns look like."""
        return ColumnFacts(self.batch) if self._tail else self._given_layout()

    @property
    def text(self) -> torch.Tensor:
        """[B, L]: which columns hold a token of their own, as opposed to padding and slots."""
        batch = self.batch
        parts = [self.model.text(piece.batch, piece.encoded) for piece in self.pieces]
        return torch.cat(parts, 1)[:, : batch.length] & batch["attention_mask"].bool()

    def note(self, tokens: torch.Tensor, *, live: torch.Tensor | None = None) -> None:
        """Know of one more token a row without computing it yet: the next `extend` or `advance` does."""
        if self._row_returns(live):
            self._join()
        self._tail.append((tokens, live))
        self._join()
        self.seen = None

    @torch.inference_mode()
    def advance(self, stop: int | None = None, requested: Requested = LAST) -> torch.Tensor | None:
        """Compute the given columns up to `stop` (None: all); the logits of the last one."""
        batch = self._join()
        stop = batch.length if stop is None else stop
        if not self.length < stop <= batch.length:
            raise GenerationError(
                f"cannot advance to column {stop}: {self.length} are computed, and {batch.length} are given"
            )
        self._feed(stop, "prefill" if self.length == 0 else "extend", requested)
        return self.logits

    @torch.inference_mode()
    def step(
        self, tokens: torch.Tensor, *, live: torch.Tensor | None = None, requested: Requested = LAST
    ) -> torch.Tensor:
        """Append one token a row, [B], and give the logits [B, V] of what follows.

        Rows that are not `live` have ended; what they are fed is padding to whatever comes later.
        """
        if self.attend is not None or self.cache is None:
            self._tail.append((tokens, live if self.cache is not None else None))
            self._feed(self._join().length, "step", requested)
            return self.logits  # type: ignore[return-value]
        if self._row_returns(live):
            self._join()
        if self._masks is None:
            self._masks = self._prepare_steps()
        self._check_room(self.length + 1)
        check_room(self._given_layout().next + len(self._tail), self.language)
        begin = time.perf_counter()
        mask, positions = self._masks.at(self.length), self._next_positions()
        if self.compiled is not None:
            self.seen = self.compiled.run({"input_ids": tokens[:, None]}, mask, positions, self.cache, requested)
        else:
            self.seen = self.language.step(tokens[:, None], mask, positions, self.cache, requested)
        self._tail.append((tokens, live))
        self._note("step", 1, begin)
        return self.seen.logits  # type: ignore[return-value]

    def extend(self, sequences: Any, features: Any = None, *, requested: Requested = LAST) -> torch.Tensor:
        """Append a sequence to every row and give the logits after it. Rows may differ in length.

        `sequences` are one `TokenSequence` a row, or ids [B, n]; `features` are the raw items of their slots.
        """
        self.give(sequences, features)
        self.advance(requested=requested)
        return self.logits  # type: ignore[return-value]

    def give(self, sequences: Any, features: Any = None) -> Batch:
        """The same without computing them yet, which `advance` does; the new columns."""
        batch = self._join()
        whole, chunk = joined(batch, self.layout, sequences, features, pad_id=self.model.backbone.pad_token_id)
        layout = ColumnFacts(whole)
        check_prompt(whole, layout, self.language)
        self._match_windows(layout.counts_by_column)
        piece = ColumnPiece(batch.length, chunk, self.model.encode(chunk))
        self._given = whole
        self._pieces.append(piece)
        self._changed()
        return chunk

    def see(self, chunk: Batch) -> None:
        """Let the last columns that were given see each other as the blocks of `chunk` say."""
        given = self._join()
        block = torch.cat([given["block"][:, : given.length - chunk.length], chunk["block"]], 1)
        self._given = Batch({**given, "block": block})
        self._changed()

    def fork(self, rows: Sequence[int] | None = None) -> DecodeState:
        """Another state with these rows, in this order, each as often as it is named. Neither changes the other."""
        batch = self.batch
        index = None
        if rows is not None:
            index = torch.as_tensor(list(rows), dtype=torch.long, device=batch.device)
            batch = batch.select(index)
        with torch.inference_mode():
            cache = None if self.cache is None else caches.fork(self.cache, index)
        new = DecodeState(
            Ready(model=self.model, language=self.language, batch=batch),
            cache,
            length=self.length,
            static_length=self.static_length,
            attend=self.attend,
            pieces=[piece.select(index) for piece in self.pieces],
        )
        new.compiled = self.compiled
        if self.seen is not None:
            logits = self.seen.logits
            chosen = logits if index is None or logits is None else logits[index]
            new.seen = Seen(logits=chosen, ids=self.seen.ids)
        return new

    @torch.inference_mode()
    def trim(self, length: int) -> None:
        """Forget the columns from `length` on. On windowed models this needs a state made with `trimmable=True`."""
        batch = self._join()
        if not 0 < length <= batch.length:
            raise GenerationError(f"cannot trim to {length} columns; the state has {batch.length}")
        if length == batch.length:
            return
        if length < self.length:
            caches.trim(self.cache, length)
            self.length = length
        self._given = cut_columns(batch, 0, length)
        self._pieces = [piece.before(length) for piece in self._pieces if piece.start < length]
        self._changed()
        self.seen = None

    @torch.inference_mode()
    def refresh(self, requested: Requested = LAST) -> torch.Tensor:
        """The logits of the last column, computed again where a trim has forgotten them."""
        if self.logits is None:
            if self.length == self.batch.length:
                caches.trim(self.cache, self.length - 1)
                self.length -= 1
            self.advance(requested=requested)
        return self.logits  # type: ignore[return-value]

    def _feed(self, stop: int, kind: str, requested: Requested) -> None:
        """One pass over the columns from `length` to `stop`."""
        begin = time.perf_counter()
        start, given, layout = self.length, self._given, self._given_layout()
        self._check_room(stop)
        if stop < given.length:
            given = cut_columns(given, 0, stop)
            layout = ColumnFacts(given)
        self._match_windows(layout.counts_by_column)
        mask, positions, cache = None, given["position_ids"][:, start:], self.cache
        if self.attend is not None or not layout.plain:
            kept: dict[str, Any] = {}
            if cache is not None:
                kept = {"use_cache": True, "cache_length": start, "key_sizes": self._key_sizes(stop - start)}
            planned = plan_attention(given, self.language.facts, dtype=self.language.dtype, attend=self.attend, **kept)
            mask, positions = planned.attention_mask, planned.position_ids
        elif cache is None:
            cache = self.language.passing  # one that keeps nothing: without any, the library looks for packed rows
        inputs = self.inputs(start, stop)
        if stop - start == 1 and mask is None and cache is not None and "input_ids" in inputs:
            self.language.before_steps()
            self.seen = self.language.step(inputs["input_ids"], None, positions, cache, requested)
        else:
            self.seen = self.language.run(inputs, mask, positions, cache, requested)
        self._note(kind, stop - start, begin)

    def inputs(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        """Inputs of columns start:stop."""
        return inputs_of(self.model, self.pieces, start, stop)

    def _key_sizes(self, queries: int) -> dict[str, tuple[int, int]]:
        """Which keys the cache will hand to attention, by layer type."""
        facts = self.language.facts
        types = facts.layer_types or facts.types * len(self.cache.layers)
        sizes: dict[str, tuple[int, int]] = {}
        for layer, name in enumerate(types):
            if name in facts.types and name not in sizes and (name == SLIDING or self.static_length is not None):
                sizes[name] = self.cache.get_mask_sizes(queries, layer)
        return sizes

    def _check_room(self, stop: int) -> None:
        if self.static_length is not None and stop > self.static_length:
            raise GenerationError(
                f"a static cache of {self.static_length} columns cannot hold {stop}; give prefill a larger `max_length`"
            )

    def _note(self, kind: str, columns: int, begin: float) -> None:
        self.passes.append(Pass(kind, self.rows, columns, self.length, time.perf_counter() - begin))
        if self.cache is not None:
            self.length += columns

    def _match_windows(self, by_column: bool) -> None:
        """A window over positions is one over columns only where both run together; else the mask must do it all."""
        if self.language.facts.windowed and self.cache is not None:
            caches.hand_out(self.cache, whole=not by_column)

    def _join(self) -> Batch:
        """Take the steps among the given columns; all of them."""
        if self._tail:
            self._pieces, self._given, self._tail = self.pieces, self.batch, []
            self._changed()
        return self._given

    def _changed(self) -> None:
        """What was made from the given columns is not theirs any more."""
        self._masks = self._positions = self._layout = self._whole = None

    def _given_layout(self) -> ColumnFacts:
        if self._layout is None:
            self._layout = ColumnFacts(self._given)
        return self._layout

    def _row_returns(self, live: torch.Tensor | None) -> bool:
        """Whether a row goes on that had ended: what it was fed meanwhile is padding, which the masks must know."""
        before = self._tail[-1][1] if self._tail else None
        return before is not None and bool((~before if live is None else live & ~before).any())

    def _prepare_steps(self) -> StepMasks:
        """Masks of the steps that follow the given columns."""
        if self.length < self._given.length:
            raise GenerationError(
                f"{self._given.length - self.length} given columns are not computed yet; call advance() before step()"
            )
        layout, language = self._given_layout(), self.language
        self._match_windows(layout.goes_on_by_column)
        language.before_steps()
        return StepMasks(layout, language.facts, dtype=language.dtype, static_length=self.static_length)

    def _next_positions(self) -> torch.Tensor:
        """[B, 1]: where the next step of each row stands: as many beyond the given columns as there were steps."""
        part, column = divmod(len(self._tail), AHEAD)
        if self._positions is None or self._positions[0] != part:
            layout = self._given_layout()
            steps = torch.arange(part * AHEAD, (part + 1) * AHEAD, device=self._given.device)
            self._positions = part, layout.tensor(layout.next_position) + steps  # always as wide: nothing recompiles
        return self._positions[1][:, column : column + 1]

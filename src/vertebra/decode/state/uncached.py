"""The honest twin of a cached state: the whole row is computed anew for every token.

As slow as it sounds. What the cached engine says is held against it, and the cost of "turn the cache off" is measured
with it. It has the face of a `DecodeState` as far as the engine looks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from vertebra.decode.state.column_facts import ColumnFacts
from vertebra.decode.state.decoding import Pass
from vertebra.decode.state.inputs import encoded
from vertebra.decode.state.language import LAST, Language, Seen, Want
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch
from vertebra.sequence.masks import Attend, plan_attention


class UncachedState:
    """Columns and the logits of the last one, without a cache."""

    static_length = None

    def __init__(
        self,
        model: Model,
        language: Language,
        batch: Batch,
        *,
        layout: ColumnFacts | None = None,
        attend: Attend | None = None,
        want: Want = LAST,
    ) -> None:
        self.model, self.language, self.batch, self.attend = model, language, batch, attend
        self.passes: list[Pass] = []
        # rows that are plain stay so: what is appended goes on as they do
        self._plain = (ColumnFacts(batch) if layout is None else layout).plain
        self._encoded = encoded(model, batch)
        self._compute("prefill", want)

    @property
    def rows(self) -> int:
        return self.batch.rows

    @property
    def logits(self) -> torch.Tensor | None:
        return self.seen.logits

    @property
    def text(self) -> torch.Tensor:
        return self.model.text(self.batch, self._encoded)

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor, *, live: torch.Tensor | None = None, want: Want = LAST) -> torch.Tensor:
        self.batch = self.batch.append(tokens[:, None])
        self._compute("step", want)
        return self.seen.logits  # type: ignore[return-value]

    def fork(self, rows: Sequence[int]) -> UncachedState:
        return UncachedState(self.model, self.language, self.batch.select(list(rows)), attend=self.attend)

    @torch.inference_mode()
    def _compute(self, kind: str, want: Want) -> None:
        begin = time.perf_counter()
        batch, language = self.batch, self.language
        # a cache that keeps nothing: handed none, the library looks for packed rows that are not there
        mask, positions, cache = None, batch["position_ids"], language.passing
        if self.attend is not None or not self._plain:
            planned = plan_attention(batch, language.facts, dtype=language.dtype, attend=self.attend)
            mask, positions, cache = planned.attention_mask, planned.position_ids, None
        inputs = self.model.inputs(batch, 0, batch.length, self._encoded)
        self.seen: Seen = language.run(inputs, mask, positions, cache, want)
        seconds = time.perf_counter() - begin
        self.passes.append(Pass(kind=kind, rows=batch.rows, columns=batch.length, cached=0, seconds=seconds))

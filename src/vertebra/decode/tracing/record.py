"""What really happens in a call of decoding, noted while it happens: passes, the modules they run, the inputs they got.

A `Recorder` looks over the shoulder of the engine's own objects: it stands in for the model and the language model of
one call and hands everything on, and hooks show which modules run and for how long. It decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vertebra.decode.start import Start
from vertebra.decode.state import cache as caches
from vertebra.decode.state.language import LAST, Language, Requested, Seen
from vertebra.decode.tracing.pictures import MaskPicture, pictures
from vertebra.sequence.batch import Batch


@dataclass
class Event:
    """One thing that was done."""

    name: str
    detail: str
    seconds: float


@dataclass
class PassRecord:
    """One call of the language model."""

    kind: str
    inputs: str
    """`ids` or `embeddings`."""
    shape: list[int]
    input_bytes: int
    positions: list[int]
    """Of the row that is looked at."""
    masks: list[MaskPicture]
    cached: int
    """Columns in the cache before."""
    cached_after: int = 0
    cache_bytes: int = 0
    injected: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Recorder:
    """Notes of one call, for one row."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.events: list[Event] = []
        self.passes: list[PassRecord] = []
        self.injected: list[str] = []
        self._mark = time.perf_counter()
        self._layers: list[float] = []

    def note(self, name: str, detail: str, seconds: float) -> None:
        self.events.append(Event(name, detail, seconds))

    def lap(self, name: str | None = None, detail: str = "") -> None:
        """Note what was done since the last mark, and mark again."""
        now = time.perf_counter()
        if name is not None:
            self.note(name, detail, now - self._mark)
        self._mark = now

    def take(self) -> list[Event]:
        """The events since they were last taken."""
        taken, self.events = self.events, []
        return taken

    def watched(self, begun: Start) -> Start:
        """The same start, with this recorder in between."""
        model: Any = _WatchedModel(begun.model, self)
        return replace(begun, model=model, language=_WatchedLanguage(begun.language, self))

    @contextmanager
    def hooks(self, backbone: Any) -> Iterator[None]:
        """Listen to the modules of a backbone for as long as it lasts."""
        llm = backbone.llm
        handles = [*self._timed(llm.get_input_embeddings(), "embed")]
        for layer in backbone.layers:
            handles += self._timed(layer, None)
        norm = dict(llm.named_modules()).get(backbone.family.norm)
        if norm is not None:
            handles += self._timed(norm, "norm")
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _timed(self, module: torch.nn.Module, name: str | None) -> list[Any]:
        began = 0.0

        def before(*_: Any) -> None:
            nonlocal began
            began = time.perf_counter()

        def after(_module: Any, _given: Any, out: Any) -> None:
            now = time.perf_counter()
            if name is None:
                self._layers.append(now - began)
            else:
                self._flush_layers()
                tensor = out[0] if isinstance(out, tuple) else out
                self.note(name, _shape(tensor), now - began)
            self._mark = now

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _flush_layers(self) -> None:
        """The layers that ran, as one event."""
        if self._layers:
            count, total = len(self._layers), sum(self._layers)
            self.note("decoder layers", f"{count} layers, one after the other", total)
            self._layers = []


class _WatchedModel:
    """A model that is looked at."""

    def __init__(self, real: Any, recorder: Recorder) -> None:
        self._real, self._recorder = real, recorder
        self.backbone, self.parts = real.backbone, real.parts

    def encode(self, batch: Batch) -> Any:
        began = time.perf_counter()
        encoded = self._real.encode(batch)
        self._recorder.lap()
        if encoded is not None and batch["features"]:
            items = ", ".join(f"{len(block['values'])} × {name}" for name, block in batch["features"].items())
            self._recorder.note("encode", f"{items}, once for the whole prompt", time.perf_counter() - began)
        return encoded

    def inputs(self, batch: Batch, start: int, stop: int, encoded: Any) -> dict[str, torch.Tensor]:
        self._recorder.lap("prepare inputs", f"columns {start} to {stop - 1} of what was given")
        given = self._real.inputs(batch, start, stop, encoded)
        if "inputs_embeds" in given:
            injected = _slots(batch, encoded.where, start, stop, self._recorder.row)
            self._recorder.injected += injected
            self._recorder.lap("inject", ", ".join(injected) or "nothing in this row")
        return given

    def text(self, batch: Batch, encoded: Any) -> torch.Tensor:
        return self._real.text(batch, encoded)


def _slots(batch: Batch, where: torch.Tensor, start: int, stop: int, row: int) -> list[str]:
    """`256 × image at 1 to 256`, for one row."""
    slot = batch["slot"][row, start:stop, 0].masked_fill(where[row, start:stop] < 0, -1)
    slots = []
    for number, name in enumerate(batch["segments"]):
        columns = (slot == number).nonzero()[:, 0] + start
        if len(columns):
            slots.append(f"{len(columns)} × {name} at {int(columns[0])} to {int(columns[-1])}")
    return slots


class _WatchedLanguage(Language):
    """A language model whose passes are noted."""

    def __init__(self, real: Language, recorder: Recorder) -> None:
        self.__dict__.update(real.__dict__)
        self._recorder = recorder

    def run(
        self,
        inputs: dict[str, torch.Tensor],
        mask: Any,
        positions: torch.Tensor,
        cache: Any,
        requested: Requested = LAST,
    ) -> Seen:
        notes = self._recorder
        if not any(event.name in ("prepare inputs", "inject") for event in notes.events):
            notes.lap("prepare inputs", "the token that was chosen, its position, its row of the mask")
        given = next(iter(inputs.values()))
        cached = 0 if cache is None else int(cache.get_seq_length())
        record = PassRecord(
            kind="prefill" if not notes.passes else ("step" if given.shape[1] == 1 else "extend"),
            inputs="ids" if "input_ids" in inputs else "embeddings",
            shape=list(given.shape),
            input_bytes=given.numel() * given.element_size(),
            positions=positions[notes.row if positions.shape[0] > 1 else 0].tolist(),
            masks=pictures(mask, self.facts, cached=cached, queries=given.shape[1], row=notes.row),
            cached=cached,
            injected=notes.injected,
        )
        notes.injected = []
        notes.passes.append(record)
        began = time.perf_counter()
        notes.lap()
        seen = super().run(inputs, mask, positions, cache, requested)
        notes._flush_layers()
        shown = "no logits yet" if seen.logits is None else _shape(seen.logits)
        notes.lap("head", f"the last column's state to {shown}" if seen.logits is not None else shown)
        record.seconds = time.perf_counter() - began
        if cache is not None:
            record.cached_after = int(cache.get_seq_length())
            record.cache_bytes = caches.num_bytes(cache)
        return seen


def _shape(tensor: torch.Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"

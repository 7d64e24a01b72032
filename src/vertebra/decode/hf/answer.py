"""What Hugging Face's engine gave back, as a `Generation`; and which passes it really made, counted at the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from vertebra.decode.choose.text import StopStrings
from vertebra.decode.result import Generation, Timings
from vertebra.decode.settings import DecodeConfig
from vertebra.decode.start import Start
from vertebra.decode.state.capture import Capture, capture_of
from vertebra.decode.state.decoding import Pass


@dataclass
class PassLog:
    """The passes of one call, and when each began."""

    passes: list[Pass] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @contextmanager
    def watching(self, llm: Any) -> Iterator[None]:
        cached = 0

        def before(_: Any, arguments: tuple[Any, ...], words: dict[str, Any]) -> None:
            nonlocal cached
            self.times.append(time.perf_counter())
            cache = words.get("past_key_values")
            cached = 0 if cache is None else int(cache.get_seq_length())

        def after(_: Any, arguments: tuple[Any, ...], words: dict[str, Any], out: Any) -> None:
            given = words.get("inputs_embeds")
            given = words.get("input_ids", *arguments[:1]) if given is None else given
            kind = "step" if self.passes else "prefill"
            self.passes.append(Pass(kind, given.shape[0], given.shape[1], cached, time.perf_counter() - self.times[-1]))

        handles = [
            llm.register_forward_pre_hook(before, with_kwargs=True),
            llm.register_forward_hook(after, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def timings(self, begin: float) -> Timings:
        """A token is made between the beginnings of two passes."""
        end = time.perf_counter()
        ends = [*self.times[1:], end]
        return Timings(
            prefill=self.passes[0].seconds,
            first_token=ends[0] - begin,
            steps=tuple(late - early for early, late in itertools.pairwise(ends)),
            total=end - begin,
        )


def answer(
    out: Any, new: torch.Tensor, begun: Start, settings: DecodeConfig, *, eos: Sequence[int], pad_id: int, log: PassLog
) -> Generation:
    """The library's output in our words. `new`: the ids that follow the prompt."""
    tokenizer = begun.model.backbone.tokenizer
    rows = [_row(ids, eos, pad_id, settings, tokenizer, cut_short=begun.cut_short) for ids in new.tolist()]
    return Generation(
        tokens=[ids for ids, _ in rows],
        stop_reason=[reason for _, reason in rows],
        prompt_length=begun.batch.length,
        passes=tuple(log.passes),
        timings=log.timings(begun.began),
        seeds=None if settings.seed is None else (int(settings.seed),),  # type: ignore[arg-type]
        engine="hf",
        pad_id=pad_id,
        device=new.device,
        tokenizer=tokenizer,
        stop_strings=settings.stops,
        logits=out.logits if settings.output_logits else None,
        scores=out.scores if settings.output_scores else None,
        hidden_states=_kept(out, "hidden_states", settings.output_hidden_states),
        attentions=_kept(out, "attentions", settings.output_attentions),
        sequences_scores=getattr(out, "sequences_scores", None),
    )


def _kept(out: Any, name: str, asked: bool | Capture) -> tuple[tuple[torch.Tensor, ...] | None, ...] | None:
    capture = capture_of(asked)
    if capture is None:
        return None
    return tuple(capture.pick(layers) if capture.at(step) else None for step, layers in enumerate(getattr(out, name)))


def _row(
    ids: list[int], eos: Sequence[int], pad_id: int, settings: DecodeConfig, tokenizer: Any, *, cut_short: bool
) -> tuple[list[int], str]:
    """What a row generated before the padding, and why it ended."""
    strings = StopStrings(tokenizer, settings.stops, ()) if settings.stops else None
    for end, token in enumerate(ids, 1):
        found = strings is not None and strings.add(token)
        if token in eos:
            return ids[:end], "eos"
        if found:
            return ids[:end], "stop string"
    if settings.max_time is not None and len(ids) < (settings.max_new_tokens or len(ids) + 1):
        return ids, "time"
    return ids, "context" if cut_short else "length"

"""The verbs that ask a model: `generate`, `stream`, `trace`, `score`, `fill`. A model may be given by its name.

A name is whatever `load` takes. It is loaded once, with its weights and in inference mode, and kept for as long as the
process lives, or until what lies in its folder changes; a model that is to go sooner, or needs options, comes from `load`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vertebra.backbone.registry import row_of
from vertebra.backbone.source import left_by_run
from vertebra.decode import call, parallel, scoring
from vertebra.decode.call import EngineName
from vertebra.decode.result import Generation, Step
from vertebra.decode.scoring import Candidate, Scores
from vertebra.decode.settings import DecodeConfig
from vertebra.decode.slots.places import FilledSlots
from vertebra.decode.tracing import trace as tracing
from vertebra.decode.tracing.trace import Trace
from vertebra.interop.load import load
from vertebra.model.model import Model

_loaded: dict[str, tuple[Any, Model]] = {}


def generate(
    model: Any, prompt: Any = None, settings: DecodeConfig | None = None, *, engine: EngineName = "auto", **options: Any
) -> Generation:
    """Let a model answer; `print` shows the answer.

    `model`: a `Model`, a backbone, or a name: an id, a folder, an adapter, a run, a hub name, a GGUF file. `prompt`: a
    text, a conversation, a `TokenSequence`, a list of these, a `Batch`, or a `DecodeState`, which is not changed; or
    `inputs_embeds=` [B, L, D] with `attention_mask=`. `options`: what stands beside the prompt (`system`, `images`,
    `page`, `raw`, `action`), names of `vertebra.decode.DecodeConfig`, keys of transformers' `GenerationConfig`, or
    `generation_config=` a whole one. `engine`: `auto` takes Hugging Face's only for what ours does not do.
    """
    return call.generate(named(model), prompt, settings, engine=engine, **options)


def stream(model: Any, prompt: Any = None, settings: DecodeConfig | None = None, **options: Any) -> Iterator[Step]:
    """`generate` token by token, with the text of each as it becomes certain; close it whenever you have enough."""
    return call.stream(named(model), prompt, settings, **options)


def trace(
    model: Any, prompt: Any = None, settings: DecodeConfig | None = None, *, row: int = 0, **options: Any
) -> Trace:
    """`generate`, and what happened in each step, of one row: passes, masks, caches, candidates, the choice."""
    return tracing.trace(named(model), prompt, settings, row=row, **options)


def score(
    model: Any, prompt: Any, candidates: Sequence[Candidate] | Sequence[Sequence[Candidate]], **options: Any
) -> Scores:
    """How likely each candidate answer is. Model, prompt and what stands beside it as for `generate`.

    `candidates`: the same for every row, or a list a row; each is text, ids, or a `TokenSequence` without slots.
    `rows_at_once=32`: candidates computed in one pass; `chunk`: the prompt in passes of so many columns.
    """
    return scoring.score(named(model), prompt, candidates, **options)


def fill(model: Any, prompt: Any, **options: Any) -> FilledSlots:
    """Fill all slots of all rows in one pass. Model, prompt and what stands beside it as for `generate`.

    `at`: where: the name of a segment (`action`), a mask [B, L], or an id that marks the places. `see`: who sees whom
    among the slots: `given`, `block`, `row`, `causal`. `read`: the logits one `before` a slot, or those `here`.
    `allowed`: ids that may stand there, or a constraint. `temperature`, `top_k`, `top_p`, `min_p`, `seed`: as for
    `generate`. `state`: a prefix computed before, which `prompt` (with the `features` of its slots) continues.
    """
    return parallel.fill(named(model), prompt, **options)


def named(model: Any) -> Any:
    """The model of a name, loaded once; anything else as it is."""
    if not isinstance(model, str | Path):
        return model
    name = str(model)
    folder = Path(name if row_of(name) else left_by_run(name)).expanduser()
    key = str(folder.resolve()) if folder.exists() else name
    stamp = _stamp(folder)
    if key not in _loaded or _loaded[key][0] != stamp:
        _loaded.pop(key, None)  # the old one may go before the new one comes
        _loaded[key] = (stamp, load(name))
    return _loaded[key][1]


def _stamp(place: Path) -> tuple[tuple[str, int], ...]:
    """What would differ if something else lay there."""
    files = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
    return tuple((file.name, file.stat().st_mtime_ns) for file in files)

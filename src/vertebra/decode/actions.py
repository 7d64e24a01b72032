"""Chunks of actions by a model's own head: the prompt in one pass, then the head alone.

    predict(model, prompt)                        [rows, chunk, dims], for heads that give numbers
    predict(model, prompt, previous=Previous(…))  going on from the chunk that is carried out meanwhile (flow)
    predict(model, more, state=state)             behind a prefix that was computed before, such as the instruction

Each row's prompt holds one chunk's slots. Noise is drawn row by row from seeds, so that a batch of robots gives what one
alone gives. It knows heads and passes; what numbers mean, and tokens for actions, others know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vertebra.backbone.head import entering_head
from vertebra.decode.allowed import SEED
from vertebra.decode.asking import ask
from vertebra.decode.settings import about_prompt
from vertebra.decode.slots.places import SEES, See, seen_as
from vertebra.decode.start import eval_mode
from vertebra.decode.state.columns import cut_columns, given_batch
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.inputs import encoded
from vertebra.decode.state.language import Requested, language_of
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError, UnknownNameError
from vertebra.model.heads.interface import ActionHead, ChunkPlaces, NoisyHead, SeenByHeads, chunks_of
from vertebra.model.heads.previous import Previous
from vertebra.model.inject import Injection
from vertebra.model.model import Model, model_of
from vertebra.sequence.batch import Batch
from vertebra.sequence.length import listed


def predict(
    model: Any,
    prompt: Any,
    *,
    segment: str = "action",
    see: See = "given",
    steps: int | None = None,
    seed: int | Sequence[int] | None = None,
    previous: Previous | None = None,
    state: DecodeState | None = None,
    features: Any = None,
    **options: Any,
) -> torch.Tensor:
    """[rows, chunk, dims] in fp32, as the head of `segment` was trained to give them (in −1 … 1).

    `prompt`, `see` and `options`: as for `fill`, with one chunk of slots a row. Of flow heads: `steps` of denoising, `seed`
    of the noise (one for all rows, or one each; by default 0, so that the same observation gives the same actions),
    `previous` what is left of the chunk before. `state`: a prefix computed before, which `prompt` (sequences, with the
    `features` of their slots) continues; it is not changed.
    """
    given = model_of(model)
    head = head_named(given, segment)
    if see not in SEES:
        raise UnknownNameError("value of `see`", see, SEES)
    if see == "row" and state is not None:
        raise GenerationError(
            'see="row" lets the prefix see the slots, and it was computed without them; leave `state` out'
        )
    if isinstance(head, NoisyHead):
        if state is not None or previous is not None:
            raise GenerationError(
                f"a head `{head.kind}` runs the whole row at every step: it continues no `state` and no `previous` chunk"
            )
        with torch.inference_mode(), eval_mode(given):
            asked = ask(given, prompt, about_prompt(options))
            batch = _seen_as(given_batch(asked.prompt, given.backbone).to(given.device), segment, see)
            return denoised(asked.model, head, batch, segment, noise_of(seed, batch.rows, head, batch.device), steps)
    with torch.inference_mode(), eval_mode(given):
        requested = _requested(
            given
        )  # the language model is looked at here, with tokens of its own: before anything is kept
        with entering_head(given.backbone.llm, lambda hidden: hidden) as entered:
            if state is None:
                asked = ask(given, prompt, about_prompt(options))
                batch = _seen_as(given_batch(asked.prompt, given.backbone).to(given.device), segment, see)
                cache = "dynamic" if head.reads == "keys" else None
                done, first = prefill(asked.model, batch, cache=cache, requested=requested), 0
            else:
                done, first = _continued(state, prompt, features, options), state.batch.length
                done.see(_seen_as(cut_columns(done.batch, first, done.batch.length), segment, see, done))
                done.advance(requested=requested)
        at = _one_each(chunks_of(done.batch, segment, head.slots), done.rows, segment)
        if head.reads == "hidden":
            hidden = entered[0] if entered else None if done.seen is None else done.seen.hidden
            given_options = _given(steps=steps, seed=seed, previous=previous)
            here = ChunkPlaces(rows=at.rows, columns=at.columns - first)
            return head.actions(SeenByHeads(batch=done.batch, hidden=hidden), here, **given_options)
        noise = noise_of(seed, done.rows, head, done.batch.device)
        seen = SeenByHeads(batch=done.batch, keys=tuple((layer.keys, layer.values) for layer in done.cache.layers))
        return head.actions(seen, at, **_given(noise=noise, steps=steps, previous=previous))


def denoised(
    model: Model, head: NoisyHead, batch: Batch, segment: str, noise: torch.Tensor, steps: int | None = None
) -> torch.Tensor:
    """[rows, chunk, dims] out of noise of that shape: a pass of the whole model for each step."""
    at = _one_each(chunks_of(batch, segment, head.slots), batch.rows, segment)
    injection = encoded(model, batch)
    if injection is None:
        raise GenerationError(f"nothing fills the slots of `{segment}`; the model needs queries of that name")
    places = injection.where[at.rows[:, None], at.columns]
    one = (at.rows[:1], at.columns[0, :1])  # logits are not asked for: of one position they cost nothing
    noisy = noise
    for time, now, then in head.walk(steps):
        values = injection.values.clone()
        values[places] = head.embeddings(noisy, time).to(values.dtype)
        filled = Injection(where=injection.where, values=values, added=injection.added)
        with entering_head(model.backbone.llm, lambda hidden: hidden) as entered:
            model(**batch, return_loss=False, positions=one, use_cache=False, injection=filled)
        noisy = head.stepped(noisy, head.actions(SeenByHeads(batch=batch, hidden=entered[0]), at), now, then)
    return noisy


def _requested(model: Model) -> Requested:
    """The body alone, where its output is what enters the head; else the whole model, which shows what enters it."""
    language = language_of(model.backbone)
    if language.head is not None:
        return Requested(logits=False)
    return Requested(logits=False, columns=torch.zeros((1, 1), dtype=torch.long, device=language.device))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _continued(state: DecodeState, prompt: Any, features: Any, options: Any) -> DecodeState:
    """A state that holds what was computed before, and the prompt behind it yet to be computed."""
    if options:
        raise GenerationError(f"{', '.join(options)}: about a prompt that begins here; with a state give sequences")
    done = state.fork()
    done.give(prompt, features)
    return done


def _seen_as(batch: Batch, segment: str, see: See, state: DecodeState | None = None) -> Batch:
    """The batch with blocks that say who sees whom among the slots."""
    if see == "given" or segment not in batch["segments"]:
        return batch
    here = (batch["slot"][..., 0] == batch["segments"].index(segment)) & batch["attention_mask"].bool()
    return seen_as(batch, here, see, above=0 if state is None else int(state.batch["block"].max()))


def _one_each(at: ChunkPlaces, rows: int, segment: str) -> ChunkPlaces:
    counts = torch.bincount(at.rows, minlength=rows).tolist()
    wrong = [f"row {row} has {count}" for row, count in enumerate(counts) if count != 1]
    if wrong:
        raise GenerationError(
            f"chunks of `{segment}`: {listed(wrong)}; expected the slots of one in every row, at the end of its prompt"
        )
    return at


def noise_of(
    seed: int | Sequence[int] | None, rows: int, head: ActionHead, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """[rows, chunk, dims] numbers that a row's seed alone decides."""
    if not SEED.admits(seed):
        raise GenerationError(f"seed is {seed!r:.60}; expected {SEED.expected}")
    seeds = [0 if seed is None else seed] * rows if seed is None or isinstance(seed, int) else list(seed)
    if len(seeds) != rows:
        raise GenerationError(f"{len(seeds)} seeds for {rows} rows; give one for each row, or one for all")
    drawn = [torch.randn(head.chunk, head.dims, generator=torch.Generator().manual_seed(int(one))) for one in seeds]
    return torch.stack(drawn).to(device)


def head_named(model: Model, segment: str) -> ActionHead:
    """A model's head for a segment."""
    if segment not in model.heads:
        hint = "It has none: `generate` and `fill` say actions in tokens." if not len(model.heads) else ""
        raise UnknownNameError("action head", segment, model.heads, hint=hint)
    head: Any = model.heads[segment]
    return head

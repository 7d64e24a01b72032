"""Hugging Face's `generate` as the second engine: for beams, and for every key that only it honors.

It gets ids, or embeddings with everything injected, and our own rules for what reads the text of the prompt, so that a
slot is never penalized here either. Whatever needs a mask of ours (blocks, packed documents) is computed by us up to
the last column and handed over as a cache. What it cannot do is refused by name before it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from vertebra.decode.choose.ends import check_ids
from vertebra.decode.hf.answer import PassLog, answer
from vertebra.decode.hf.rules import OurRules
from vertebra.decode.result import Generation
from vertebra.decode.settings import KEYS, ROWS, SHAPING, Settings
from vertebra.decode.start import Start, start
from vertebra.decode.state import cache as caches
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.inputs import encoded
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError
from vertebra.model.model import Model


def generate_hf(model: Model, prompt: Any, settings: Settings) -> Generation:
    """One call of Hugging Face's engine."""
    _refuse(settings)
    begun = start(model, prompt, settings)
    inputs = _inputs(model, begun, settings)
    embeds = "inputs_embeds" in inputs
    _refuse_embeds(settings, embeds)
    _refuse_here(settings, begun)
    call = _Call.of(begun, settings)
    llm = begun.language.llm
    log = PassLog()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_seeded(settings))
        stack.enter_context(log.watching(llm))
        if settings.output_attentions and begun.language.facts.kernel != "eager":
            stack.enter_context(begun.model.backbone.kernel("eager"))
        try:
            out = llm.generate(**inputs, **call.arguments)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            raise GenerationError(f"Hugging Face's engine refuses this call: {error}") from error
    prompt_in_it = 0 if embeds else begun.batch.length
    return answer(out, begun, settings, eos=call.eos, pad_id=call.pad_id, prompt_in_it=prompt_in_it, log=log)


def _refuse(settings: Settings) -> None:
    for name in settings.differing:
        if name in ROWS and ROWS[name].alone:
            raise GenerationError(f'`{name}` is ours alone; leave it out, or use engine="vertebra"')
    if settings.seed is not None and not isinstance(settings.seed, int):
        raise GenerationError(
            'Hugging Face\'s engine draws all rows from one stream: give one seed, or use engine="vertebra" for a seed a row'
        )


def _refuse_embeds(settings: Settings, embeds: bool) -> None:
    if not embeds:
        return
    for name in settings.hf:
        if KEYS[name].fate == "hf ids":
            raise GenerationError(
                f"`{name}` works for prompts of ids alone, and this one has embeddings: {KEYS[name].why}"
            )
    if not settings.use_cache:
        raise GenerationError(
            'Hugging Face\'s engine silently turns the cache on again for embeddings; use engine="vertebra", which has an '
            "uncached twin"
        )
    if settings.chunk is not None:
        raise GenerationError('prefill in chunks crashes there with embeddings; use engine="vertebra"')


def _refuse_here(settings: Settings, begun: Start) -> None:
    """What depends on the batch or on the machine."""
    if "prompt_lookup_num_tokens" in settings.hf and begun.batch.rows > 1:
        raise GenerationError(f"`prompt_lookup_num_tokens` works for one row; the batch has {begun.batch.rows}")
    if "offloaded" in str(settings.hf.get("cache_implementation")) and begun.language.device.type != "cuda":
        raise GenerationError("an offloaded cache moves between a CUDA device and the CPU, and the model is on the CPU")
    if "cache_implementation" in settings.hf and _keeps_one(begun):
        raise GenerationError(
            f"cache_implementation={settings.hf['cache_implementation']!r} keeps more of a window of one position than "
            'the model may see, and answers wrong; leave it out, or give "static"'
        )


def _inputs(model: Model, begun: Start, settings: Settings) -> dict[str, Any]:
    """Ids or embeddings, the mask, and a cache where there is one."""
    state, batch = begun.state, begun.batch
    if state is None and (begun.layout.plain or _says_it_all(begun)):
        kept = encoded(begun.model, batch)
        with torch.inference_mode():
            inputs: dict[str, Any] = dict(begun.model.inputs(batch, 0, batch.length, kept))
        cache = _cache(begun, settings)
        if cache is not None:
            inputs["past_key_values"] = cache
        return {**inputs, "attention_mask": batch["attention_mask"]}
    if state is None:
        state = prefill(model, batch, upto=batch.length - 1) if batch.length > 1 else prefill(model, batch)
    else:
        state = state.fork()
    return _from_state(state, settings)


def _cache(begun: Start, settings: Settings) -> Any:
    """The cache that is handed over; None: the library makes its own."""
    language, given = begun.language, settings.cache
    if not _keeps_one(begun) or not settings.use_cache or caches.is_static(given) or given == "static":
        return None if isinstance(given, str) else given
    if isinstance(given, str):
        return caches.growing(language.layers, language.llm.config, trimmable=True)
    return caches.adopt(given, trimmable=True)


def _keeps_one(begun: Start) -> bool:
    """Whether a layer sees its own position alone: there the library's dynamic layers keep all columns, and not none."""
    facts = begun.language.facts
    return facts.windowed and facts.window == 1


def _says_it_all(begun: Start) -> bool:
    """Whether a 2-D mask, and positions counted along it, are all that there is to say."""
    layout = begun.layout
    counted = layout.real.cumsum(1) - 1
    one_document = bool((layout.open == layout.real).all())
    return (
        one_document and not bool(begun.batch["block"].any()) and bool((counted == layout.position)[layout.real].all())
    )


def _from_state(state: DecodeState, settings: Settings) -> dict[str, Any]:
    """Everything but the last column as a cache."""
    batch, layout = state.batch, state.layout
    seen = layout.tensor(layout.open)
    if bool(((seen.long().cumsum(1) - 1) != batch["position_ids"])[seen].any()):
        raise GenerationError(
            "Hugging Face's engine counts positions along the mask, and those of this batch go otherwise; use "
            'engine="vertebra"'
        )
    if state.length == batch.length:
        with torch.inference_mode():
            caches.trim(state.cache, batch.length - 1)
    repeats = max(int(settings.hf.get("num_beams") or 1), settings.num_return_sequences)
    rows = torch.arange(batch.rows, device=batch.device).repeat_interleave(repeats)
    with torch.inference_mode():
        cache = caches.fork(state.cache, rows)
    last = state.inputs(batch.length - 1, batch.length)
    inputs: dict[str, Any] = {"attention_mask": seen.long(), "past_key_values": cache}
    if "input_ids" in last:
        return {**inputs, "input_ids": batch["input_ids"]}
    width = last["inputs_embeds"]
    # only the last one is read: what lies before it is cached
    whole = torch.cat([width.new_zeros((batch.rows, batch.length - 1, width.shape[-1])), width], 1)
    return {**inputs, "inputs_embeds": whole}


@dataclass(kw_only=True)
class _Call:
    """What is handed to the library besides the inputs."""

    arguments: dict[str, Any]
    eos: tuple[int, ...]
    pad_id: int

    @classmethod
    def of(cls, begun: Start, settings: Settings) -> _Call:
        backbone, vocabulary = begun.model.backbone, begun.language.num_logits
        eos = backbone.eos_token_ids if settings.eos_token_id is None else settings.eos_token_id
        eos = check_ids(eos, vocabulary, "eos_token_id")
        pad_id = backbone.pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        # what our rules do comes before the library shapes and draws
        names = (*SHAPING, "renormalize_logits", "max_time")
        keys: dict[str, Any] = {
            name: getattr(settings, name) for name in names if getattr(settings, name) not in (None, False)
        }
        if settings.samples:
            # left out, the library would put its own default there: the fifty best
            keys |= {
                "top_k": settings.top_k or 0,
                "top_p": settings.top_p or 1.0,
                "temperature": settings.temperature or 1.0,
            }
        keys |= {
            "do_sample": settings.samples,
            "max_new_tokens": begun.most,
            "pad_token_id": pad_id,
            # an empty list would be replaced by the model's own
            "eos_token_id": list(eos) if eos else _NO_ID,
            "num_return_sequences": settings.num_return_sequences,
            "return_dict_in_generate": True,
            "use_cache": settings.use_cache,
            **{name: bool(getattr(settings, name)) for name, row in ROWS.items() if row.shows},
        }
        if settings.hf.get("num_beams") and int(settings.hf["num_beams"]) > 1:
            keys["output_scores"] = True  # the scores of whole beams come with them
        if settings.cache == "static":
            keys |= {"cache_implementation": "static", "disable_compile": True}
        if settings.chunk is not None:
            keys["prefill_chunk_size"] = settings.chunk
        arguments: dict[str, Any] = {"generation_config": GenerationConfig(**{**keys, **settings.hf})}
        if settings.stops:
            arguments["generation_config"].stop_strings = list(settings.stops)
        if settings.stops or "token_healing" in settings.hf:
            arguments["tokenizer"] = backbone.tokenizer
        rules = OurRules.of(begun, settings, eos)
        if rules is not None:
            arguments["logits_processor"] = LogitsProcessorList([rules])
        return cls(arguments=arguments, eos=eos, pad_id=pad_id)


_NO_ID = 2**31
"""No token has it."""


@contextmanager
def _seeded(settings: Settings) -> Iterator[None]:
    """With the seed that was given, and the caller's own stream as it was afterwards."""
    if settings.seed is None:
        yield
        return
    if not settings.samples:
        raise GenerationError("a seed would have no effect, for decoding is greedy; leave it out, or sample")
    with torch.random.fork_rng():
        torch.manual_seed(int(settings.seed))  # type: ignore[arg-type]
        yield

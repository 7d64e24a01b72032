"""Hugging Face's `generate` as the second engine: for beams, for caches of the library's own, for keys that only it honors.

It gets ids, or embeddings with everything injected, and our own rules for what reads the text of the prompt, so that a
slot is never penalized here either. Whatever needs a mask of ours (blocks, packed documents) is computed by us up to
the last column and handed over as a cache. What it cannot do is refused by name before it starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from vertebra.decode.allowed import COUNT
from vertebra.decode.choose.ends import ids_in
from vertebra.decode.hf.answer import PassLog, answer
from vertebra.decode.hf.rules import OurRules
from vertebra.decode.result import Generation
from vertebra.decode.settings import KEYS, ROWS, SHAPING, DecodeConfig
from vertebra.decode.start import Start, start
from vertebra.decode.state import cache as caches
from vertebra.decode.state.decoding import DecodeState
from vertebra.decode.state.inputs import encoded
from vertebra.decode.state.prefill import prefill
from vertebra.errors import GenerationError
from vertebra.model.model import Model
from vertebra.reading import reading

_NO_ID = 2**31
"""No token has it."""


def generate_hf(model: Model, prompt: Any, settings: DecodeConfig) -> Generation:
    """One call of Hugging Face's engine."""
    _refuse_ours(settings)
    begun = start(model, prompt, settings)
    inputs = _inputs(model, begun, settings)
    _refuse_here(begun, settings, embeds="inputs_embeds" in inputs)
    backbone, llm = begun.model.backbone, begun.language.llm
    eos, pad_id = ids_in(settings, backbone, begun.language.num_logits)
    arguments: dict[str, Any] = {"generation_config": _config(begun, settings, eos, pad_id)}
    if settings.stops:
        arguments["tokenizer"] = backbone.tokenizer
    rules = OurRules.of(begun, settings, eos)
    if rules is not None:
        arguments["logits_processor"] = LogitsProcessorList([rules])
    log = PassLog()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_seeded(settings))
        stack.enter_context(log.watching(llm))
        if settings.output_attentions and begun.language.facts.kernel != "eager":
            stack.enter_context(backbone.kernel("eager"))
        try:
            out = llm.generate(**inputs, **arguments)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            raise GenerationError(f"Hugging Face's engine refuses this call: {error}") from error
    new = out.sequences if "inputs_embeds" in inputs else out.sequences[:, begun.batch.length :]
    return answer(out, new, begun, settings, eos=eos, pad_id=pad_id, log=log)


def _refuse_ours(settings: DecodeConfig) -> None:
    ours = [name for name in settings.differing if name in ROWS and ROWS[name].alone]
    for name in ["compile"] if settings.compile else ours:  # compiling decides the cache, which nobody gave
        raise GenerationError(f'`{name}` is ours alone; leave it out, or use engine="vertebra"')
    beams = settings.hf.get("num_beams")
    if beams is not None and not COUNT.admits(beams):
        raise GenerationError(f"num_beams is {beams!r:.60}; expected {COUNT.expected}")
    if isinstance(settings.seed, Sequence):
        raise GenerationError(
            'Hugging Face\'s engine draws all rows from one stream: give one seed, or use engine="vertebra" for a seed a row'
        )


def _refuse_here(begun: Start, settings: DecodeConfig, *, embeds: bool) -> None:
    """What depends on the batch or on the machine."""
    theirs = settings.hf
    for name in theirs:
        if embeds and KEYS[name].fate == "hf ids":
            raise GenerationError(
                f"`{name}` works for prompts of ids alone, and this one has embeddings: {KEYS[name].why}"
            )
    if "prompt_lookup_num_tokens" in theirs and begun.batch.rows > 1:
        raise GenerationError(f"`prompt_lookup_num_tokens` works for one row; the batch has {begun.batch.rows}")
    if "offloaded" in str(theirs.get("cache_implementation")) and begun.language.device.type != "cuda":
        raise GenerationError("an offloaded cache moves between a CUDA device and the CPU, and the model is on the CPU")
    if "cache_implementation" in theirs and _keeps_one(begun):
        raise GenerationError(
            f"cache_implementation={theirs['cache_implementation']!r} keeps more of a window of one position than the model "
            "may see, and answers wrong; leave it out"
        )


def _inputs(model: Model, begun: Start, settings: DecodeConfig) -> dict[str, Any]:
    """Ids or embeddings, the mask, and a cache where there is one."""
    state, batch = begun.state, begun.batch
    if state is None and (begun.layout.plain or _states_all(begun)):
        with torch.inference_mode():
            inputs: dict[str, Any] = dict(model.inputs(batch, 0, batch.length, encoded(model, batch)))
        if _keeps_one(begun):
            language = begun.language
            inputs["past_key_values"] = caches.growing(language.layers, language.llm.config, trimmable=True)
        return {**inputs, "attention_mask": batch["attention_mask"]}
    if state is None:
        state = prefill(model, batch, upto=max(batch.length - 1, 1))
    else:
        state = state.fork()
    return _from_state(state, settings)


def _keeps_one(begun: Start) -> bool:
    """Whether a layer sees its own position alone: there the library's dynamic layers keep all columns, and not none."""
    facts = begun.language.facts
    return facts.windowed and facts.window == 1


def _states_all(begun: Start) -> bool:
    """Whether a 2-D mask, and positions counted along it, are all that there is to say."""
    layout = begun.layout
    counted = layout.real.cumsum(1) - 1
    one_document = bool((layout.open == layout.real).all())
    return (
        one_document and not bool(begun.batch["block"].any()) and bool((counted == layout.position)[layout.real].all())
    )


@torch.inference_mode()
def _from_state(state: DecodeState, settings: DecodeConfig) -> dict[str, Any]:
    """Everything but the last column as a cache."""
    batch, layout = state.batch, state.layout
    seen = layout.tensor(layout.open)
    if bool(((seen.long().cumsum(1) - 1) != batch["position_ids"])[seen].any()):
        raise GenerationError(
            "Hugging Face's engine counts positions along the mask, and those of this batch go otherwise; use "
            'engine="vertebra"'
        )
    if state.length == batch.length:
        caches.trim(state.cache, batch.length - 1)
    repeats = max(int(settings.hf.get("num_beams") or 1), settings.num_return_sequences)
    rows = torch.arange(batch.rows, device=batch.device).repeat_interleave(repeats)
    inputs: dict[str, Any] = {
        "attention_mask": seen.long(),
        "past_key_values": caches.fork(state.cache, rows),
    }
    last = state.inputs(batch.length - 1, batch.length)
    if "input_ids" in last:
        return {**inputs, "input_ids": batch["input_ids"]}
    width = last["inputs_embeds"]
    # only the last one is read: what lies before it is cached
    whole = torch.cat([width.new_zeros((batch.rows, batch.length - 1, width.shape[-1])), width], 1)
    return {**inputs, "inputs_embeds": whole}


def _config(begun: Start, settings: DecodeConfig, eos: Sequence[int], pad_id: int) -> GenerationConfig:
    """What is handed to the library besides the inputs and our rules, which come before it shapes and draws."""
    names = (*SHAPING, "renormalize_logits", "max_time")
    keys = {name: getattr(settings, name) for name in names if getattr(settings, name) not in (None, False)}
    if settings.samples:
        # what is left out, the library fills with defaults of its own: the fifty best
        keys = {"top_k": 0, "top_p": 1.0, "temperature": 1.0, **keys}
    keys |= {
        "do_sample": settings.samples,
        "max_new_tokens": begun.most,
        "pad_token_id": pad_id,
        # an empty list would be replaced by the model's own
        "eos_token_id": list(eos) or _NO_ID,
        "num_return_sequences": settings.num_return_sequences,
        "return_dict_in_generate": True,
        "use_cache": True,
        "stop_strings": list(settings.stops) or None,
        **{name: bool(getattr(settings, name)) for name, row in ROWS.items() if row.shows},
    }
    with reading("Hugging Face's engine cannot take these settings", "change or leave them out", error=GenerationError):
        if (settings.hf.get("num_beams") or 1) > 1:
            keys["output_scores"] = True  # the scores of whole beams come with them
        return GenerationConfig(**{**keys, **settings.hf})


@contextmanager
def _seeded(settings: DecodeConfig) -> Iterator[None]:
    """With the seed that was given, and the caller's own stream as it was afterwards."""
    if settings.seed is None:
        yield
        return
    if not settings.samples:
        raise GenerationError("a seed would have no effect, for decoding is greedy; leave it out, or sample")
    with torch.random.fork_rng():
        torch.manual_seed(int(settings.seed))  # type: ignore[arg-type]
        yield

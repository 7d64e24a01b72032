"""`Settings`: everything that one call of decoding can be told, checked before anything runs.

An unknown name fails with the nearest one; a key of transformers' `GenerationConfig` is honored, passed on to the
other engine, or refused by name (`keys.py`); a setting that would have no effect is refused. It knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from vertebra.decode.keys import KEYS
from vertebra.decode.state.capture import Capture
from vertebra.errors import ConfigError, GenerationError, UnknownNameError
from vertebra.sequence.masks import Attend

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`processor(ids [B, L], scores [B, V]) -> scores`: a function, or a LogitsProcessor of transformers."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
# What an option says for itself undoes in a config that it is laid over.
_OVERRULES = {
    "max_new_tokens": ("max_length",),
    "max_length": ("max_new_tokens",),
    "do_sample": ("do_sample", *_SAMPLING),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What may stand beside a prompt."""

    system: str | None = None
    """A system prompt, before everything else."""
    images: Sequence[Any] = ()
    """Image files or images, in the order of the conversation's image parts; where it has none, before the question."""
    page: Any = None
    """Lines of a page, each {text, box}, or a JSON file of them; where the conversation has no page, before the question."""
    raw: bool = False
    """Continue the text as it stands, without a prompt format."""
    action: bool = False
    """Open the answer for an action, as training saw it."""
    inputs_embeds: torch.Tensor | None = None
    """[B, L, D], in place of a prompt."""
    attention_mask: torch.Tensor | None = None
    """[B, L] of `inputs_embeds`: 1 where one is real; None: everywhere."""

    @property
    def given(self) -> list[str]:
        """The names of what was given."""
        return [one.name for one in fields(self) if _is_given(getattr(self, one.name))]


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and (isinstance(value, torch.Tensor) or value != ())


QUESTIONS = tuple(one.name for one in fields(Question))


def question_of(options: Mapping[str, Any]) -> tuple[Question, dict[str, Any]]:
    """What is about the prompt, and all other options."""
    own = {name: value for name, value in options.items() if name in QUESTIONS and value is not None}
    return Question(**own), {name: value for name, value in options.items() if name not in QUESTIONS}


def about_prompt(options: Mapping[str, Any]) -> Question:
    """A question of options that are all about the prompt."""
    question, others = question_of(options)
    if others:
        raise UnknownNameError("option", next(iter(others)), QUESTIONS)
    return question


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One call's settings. Greedy, to the model's own end ids or 256 tokens, unless told otherwise."""

    max_new_tokens: int | None = None
    """At most so many; 256 where neither this nor `max_length` is given."""
    max_length: int | None = None
    """The same, prompt counted."""
    min_new_tokens: int = 0
    min_length: int = 0
    max_time: float | None = None
    """Seconds; the token that is being made is still finished."""
    eos_token_id: int | Sequence[int] | None = None
    """Ids that end a row; None: all of the model's own; (): none."""
    pad_token_id: int | None = None
    """What stands after a row's end; None: the model's own."""
    stop_strings: str | Sequence[str] = ()
    """Text that ends a row. It stays in `sequences` and is cut off `text`."""
    stop: Callable[[Any], Sequence[bool]] | None = None
    """`stop(step)` says for each row whether it shall end here."""

    do_sample: bool | None = None
    """None: sampling where temperature, top_k, top_p or min_p is given."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | Sequence[int] | None = None
    """One a row; a single number counts up along the rows; None: drawn, and told in the result."""
    repetition_penalty: float = 1.0
    """Over the ids of the prompt's text and of what was said; never over slots."""
    no_repeat_ngram_size: int = 0
    sequence_bias: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    bad_words_ids: Sequence[Sequence[int]] = ()
    suppress_tokens: Sequence[int] = ()
    begin_suppress_tokens: Sequence[int] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    renormalize_logits: bool = False
    remove_invalid_values: bool = False
    logits_processor: Sequence[Processor] = ()
    constraint: Any = None
    """A `Constraint`: which ids are possible at each step."""

    num_return_sequences: int = 1
    """Several answers to each prompt, which is computed once; they stand next to each other."""

    use_cache: bool = True
    """False computes the whole row anew for every token: right, slow, and good for comparing."""
    cache: Any = "dynamic"
    """`dynamic`, `static`, or a transformers cache that holds the first columns of the batch."""
    cache_length: int | None = None
    """Columns of a static cache; None: as many as this call can need."""
    chunk: int | None = None
    """Prompts are computed in passes of at most so many columns."""
    compile: bool | str | Callable[..., Any] = False
    """Compile the decode step, over a static cache; anything but a bool is a backend of torch.compile."""
    attend: Attend | None = None
    """A free rule of who sees whom, as in `sequence.masks`."""

    keep_state: bool = False
    """Give back where it ended, so that it can be extended and decoded on. Rows that end then stay in the batch."""
    output_logits: bool = False
    output_scores: bool = False
    output_hidden_states: bool | Capture = False
    output_attentions: bool | Capture = False

    hf: Mapping[str, Any] = field(default_factory=dict)
    """Keys that only Hugging Face's engine honors."""

    def __post_init__(self) -> None:
        for check in (_check_lengths, _check_sampling, _check_ids, _check_rest):
            check(self)

    @property
    def samples(self) -> bool:
        if self.do_sample is not None:
            return self.do_sample
        return any(getattr(self, name) is not None for name in _SAMPLING) and self.temperature != 0

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop_strings,) if isinstance(self.stop_strings, str) else tuple(self.stop_strings)

    def tokens_after(self, columns: int) -> int:
        """How many tokens may follow a prompt of so many columns."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return 256
        if self.max_length <= columns:
            raise GenerationError(
                f"max_length is {self.max_length}, and the prompt has {columns} columns already; raise it, or give "
                "max_new_tokens, which does not count the prompt"
            )
        return self.max_length - columns


NAMES = tuple(item.name for item in fields(Settings) if item.name != "hf")


def settings_of(settings: Settings | None = None, *, generation_config: Any = None, **options: Any) -> Settings:
    """Settings from settings, a transformers `GenerationConfig` and options by name; the later wins."""
    given: dict[str, Any] = {}
    if generation_config is not None:
        keys = generation_config if isinstance(generation_config, Mapping) else vars(generation_config)
        given = {key: value for key, value in keys.items() if value is not None and not key.startswith("_")}
        for name, undone in _OVERRULES.items():
            if options.get(name) is not None and options[name] is not True:
                given = {key: value for key, value in given.items() if key not in undone}
    given |= options
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for name, value in given.items():
        _sort(name, value, ours, theirs)
    if theirs:
        ours["hf"] = {**(settings.hf if settings else {}), **theirs}
    return Settings(**ours) if settings is None else replace(settings, **ours)


def _sort(name: str, value: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """One option to where it belongs, or an error that names it."""
    key = KEYS.get(name)
    if key is not None and key.fate == "refused":
        raise GenerationError(f"`{name}` is not supported: {key.why}")
    if key is not None and key.fate == "none":
        return
    if name == "cache_implementation" and value not in ("dynamic", "static"):
        theirs[name] = value  # quantized and offloaded caches are the library's own
    elif key is not None and key.fate.startswith("hf"):
        theirs[name] = value
    elif key is not None and key.setting is not None:
        ours[key.setting] = value
    elif name in NAMES:
        ours[name] = _default(name) if value is None else value
    else:
        known = [*NAMES, *QUESTIONS, *[name for name, key in KEYS.items() if key.fate not in ("none", "refused")]]
        raise UnknownNameError("generation option", name, dict.fromkeys(known))


def _default(name: str) -> Any:
    return getattr(Settings(), name)


def _check_lengths(given: Settings) -> None:
    for name in ("max_new_tokens", "max_length"):
        value = getattr(given, name)
        if value is not None and (not _whole(value) or value < 1):
            raise GenerationError(f"{name} is {value!r}; expected a whole number from 1 on")
    if given.max_new_tokens is not None and given.max_length is not None:
        raise ConfigError("max_new_tokens and max_length both say when to stop; give one of them")
    for name in ("min_new_tokens", "min_length", "no_repeat_ngram_size"):
        value = getattr(given, name)
        if not _whole(value) or value < 0:
            raise GenerationError(f"{name} is {value!r}; expected a whole number from 0 on")
    if given.max_new_tokens is not None and given.min_new_tokens > given.max_new_tokens:
        raise GenerationError(
            f"min_new_tokens={given.min_new_tokens} is more than max_new_tokens={given.max_new_tokens}"
        )
    if given.max_time is not None and not given.max_time > 0:
        raise GenerationError(f"max_time is {given.max_time!r}; expected seconds, more than 0")
    for name in ("num_return_sequences", "chunk", "cache_length"):
        value = getattr(given, name)
        if value is not None and (not _whole(value) or value < 1):
            raise GenerationError(f"{name} is {value!r}; expected a whole number from 1 on")


def _check_sampling(given: Settings) -> None:
    if given.do_sample and given.temperature == 0:
        raise GenerationError(
            "do_sample=True with temperature=0: sampling needs one above 0; greedy is do_sample=False"
        )
    if given.do_sample is False or given.temperature == 0:
        useless = [name for name in _SAMPLING if getattr(given, name) not in (None, 0)]
        if useless:
            raise GenerationError(
                f"{', '.join(useless)} would have no effect, for decoding is greedy (do_sample={given.do_sample}, "
                f"temperature={given.temperature}); leave it out, or sample"
            )
    ranges: dict[str, tuple[float, float]] = {"top_p": (0.0, 1.0), "min_p": (0.0, 1.0)}
    for name, (low, high) in ranges.items():
        value = getattr(given, name)
        if value is not None and not low <= value <= high:
            raise GenerationError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")
    if given.top_p == 0:
        raise GenerationError("top_p is 0, which keeps no token; expected a number above 0 up to 1")
    if given.temperature is not None and not 0 <= given.temperature < float("inf"):
        raise GenerationError(f"temperature is {given.temperature!r}; expected a number from 0 on")
    if given.top_k is not None and (not _whole(given.top_k) or given.top_k < 0):
        raise GenerationError(f"top_k is {given.top_k!r}; expected a whole number from 1 on (0 or None: off)")
    if not given.repetition_penalty > 0:
        raise GenerationError(f"repetition_penalty is {given.repetition_penalty!r}; expected a number above 0 (1: off)")
    if given.num_return_sequences > 1 and not given.samples and not given.hf.get("num_beams"):
        raise GenerationError(
            f"num_return_sequences={given.num_return_sequences} without sampling gives the same answer each time; set a "
            "temperature, or num_beams"
        )


def _check_ids(given: Settings) -> None:
    lists: dict[str, Any] = {
        "eos_token_id": given.eos_token_id,
        "suppress_tokens": given.suppress_tokens,
        "begin_suppress_tokens": given.begin_suppress_tokens,
        "forced_eos_token_id": given.forced_eos_token_id,
    }
    for name, value in lists.items():
        if value not in (None, ()) and not all(map(_whole, ids_of(value))):
            raise GenerationError(f"{name} is {value!r:.60}; expected token ids")
    for words in (*given.bad_words_ids, *given.sequence_bias):
        if not ids_of(words) or not all(_whole(item) for item in words):
            raise GenerationError(f"bad_words_ids and sequence_bias are about lists of token ids; got {words!r}")


def _check_rest(given: Settings) -> None:
    if any(not text for text in given.stops) or any(not isinstance(text, str) for text in given.stops):
        raise GenerationError(f"stop_strings are {given.stops!r}; expected text, none of it empty")
    if not given.use_cache:
        for name in ("compile", "chunk", "cache_length"):
            if getattr(given, name):
                raise ConfigError(f"`{name}` is about a cache, and use_cache=False asks for none")
    if given.compile and isinstance(given.cache, str) and given.cache == "dynamic":
        object.__setattr__(given, "cache", "static")  # compiled steps need tensors that stay where they are


def ids_of(value: Any) -> tuple[Any, ...]:
    """One id, several or none, as a tuple."""
    if value is None:
        return ()
    if isinstance(value, torch.Tensor):
        return tuple(value.flatten().tolist())
    return tuple(value) if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str) else (value,)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""`DecodeConfig`: everything that one call of decoding can be given, one row a setting, checked before anything runs.

A row is a name, its default, what it may be, what it means, and what follows from it: the library's own name for it,
whether it reads the text so far, shapes what is drawn, holds ids, is decided by a state, or is ours alone. The engines
and the checks read these rows. An unknown name fails with the nearest one; keys of transformers' `GenerationConfig`
that are no settings of ours are in `keys.py`; a setting that would have no effect is refused. It knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

import torch

from vertebra.decode.allowed import (
    CONSTRAINT,
    COUNT,
    DECAY,
    FROM_0,
    FUNCTION,
    FUNCTIONS,
    HEAT,
    ID,
    IDS,
    PENALTY,
    SECONDS,
    SEED,
    SHARE,
    SOME_SHARE,
    TEXT,
    TOP_K,
    WORDS,
    YES_OR_NO,
    Allowed,
    texts_of,
)
from vertebra.decode.keys import FOREIGN, OptionKey
from vertebra.decode.state.capture import Capture
from vertebra.errors import ConfigError, GenerationError, UnknownNameError
from vertebra.sequence.masks import Attend

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`processor(ids [B, L], scores [B, V]) -> scores`: a function, or a LogitsProcessor of transformers."""


class SettingRow(NamedTuple):
    """What follows from a setting."""

    allowed: Allowed | None = None
    key: str | None = None
    """The library's name for it, where that differs."""
    reads: bool = False
    """Its rule reads the text of the prompt and of what was generated."""
    shapes: bool = False
    """It shapes what is drawn from; given, it asks for sampling."""
    off: float | None = None
    """A value that is as good as none."""
    ids: bool = False
    """It holds ids that must be rows of the head."""
    state: bool = False
    """A `DecodeState` has decided it when it was made."""
    alone: bool = False
    """Our engine alone does it."""
    shows: bool = False
    """It shows something of each step."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """One call's settings. Greedy, to the model's own end ids or 256 tokens, unless others are given."""

    max_new_tokens: Annotated[int | None, SettingRow(COUNT)] = None
    """At most so many; 256 where neither this nor `max_length` is given."""
    max_length: Annotated[int | None, SettingRow(COUNT)] = None
    """The same, prompt counted."""
    min_new_tokens: Annotated[int, SettingRow(FROM_0)] = 0
    min_length: Annotated[int, SettingRow(FROM_0)] = 0
    max_time: Annotated[float | None, SettingRow(SECONDS)] = None
    """Seconds; the token that is being made is still finished."""
    eos_token_id: Annotated[int | Sequence[int] | None, SettingRow(IDS)] = None
    """Ids that end a row; None: all of the model's own; (): none."""
    pad_token_id: Annotated[int | None, SettingRow(ID)] = None
    """What stands after a row's end; None: the model's own."""
    stop_strings: Annotated[str | Sequence[str], SettingRow(TEXT)] = ()
    """Text that ends a row. It stays in `sequences` and is cut off `text`."""
    stop: Annotated[Callable[[Any], Sequence[bool]] | None, SettingRow(FUNCTION, alone=True)] = None
    """`stop(step)` gives for each row whether it ends here."""

    do_sample: Annotated[bool | None, SettingRow(YES_OR_NO)] = None
    """None: sampling where temperature, top_k, top_p or min_p is given."""
    temperature: Annotated[float | None, SettingRow(HEAT, shapes=True)] = None
    """Scores are divided by it; 0: greedy."""
    top_k: Annotated[int | None, SettingRow(TOP_K, shapes=True)] = None
    """Draw from the k best."""
    top_p: Annotated[float | None, SettingRow(SOME_SHARE, shapes=True)] = None
    """Draw from the best that hold this probability."""
    min_p: Annotated[float | None, SettingRow(SHARE, shapes=True)] = None
    """Draw from what is this likely beside the best."""
    typical_p: Annotated[float | None, SettingRow(SOME_SHARE, shapes=True, off=1.0)] = None
    """Draw from what is about as surprising as is to be expected, up to this probability."""
    top_h: Annotated[float | None, SettingRow(SOME_SHARE, shapes=True)] = None
    """Draw from the best that hold this share of the entropy."""
    epsilon_cutoff: Annotated[float | None, SettingRow(SHARE, shapes=True, off=0.0)] = None
    """Draw from what is at least this probable."""
    eta_cutoff: Annotated[float | None, SettingRow(SHARE, shapes=True, off=0.0)] = None
    """The same, with a bound that falls where much is possible."""
    seed: Annotated[int | Sequence[int] | None, SettingRow(SEED)] = None
    """One a row; a single number counts up along the rows; None: drawn, and listed in the result."""
    repetition_penalty: Annotated[float, SettingRow(PENALTY, reads=True)] = 1.0
    """Over the ids of the prompt's text and of what was generated; never over slots."""
    exponential_decay_length_penalty: Annotated[tuple[int, float] | None, SettingRow(DECAY)] = None
    """(step, factor): from that step on ids that end a row become likelier, by a power of the factor."""
    no_repeat_ngram_size: Annotated[int, SettingRow(FROM_0, reads=True)] = 0
    """No so many ids stand in a row twice."""
    sequence_bias: Annotated[Mapping[tuple[int, ...], float], SettingRow(WORDS, reads=True, ids=True)] = field(
        default_factory=dict
    )
    """What is added to the score of the last id of a sequence whose others were just generated."""
    bad_words_ids: Annotated[Sequence[Sequence[int]], SettingRow(WORDS, reads=True, ids=True)] = ()
    """Sequences of ids that are impossible."""
    suppress_tokens: Annotated[Sequence[int], SettingRow(IDS, ids=True)] = ()
    """Ids that are impossible."""
    begin_suppress_tokens: Annotated[Sequence[int], SettingRow(IDS, ids=True)] = ()
    """The same for the first token."""
    forced_bos_token_id: Annotated[int | None, SettingRow(IDS, ids=True)] = None
    """The first token."""
    forced_eos_token_id: Annotated[int | Sequence[int] | None, SettingRow(IDS, ids=True)] = None
    """The last token, where a row is as long as it may be."""
    renormalize_logits: Annotated[bool, SettingRow()] = False
    """Scores are log probabilities, after every rule."""
    remove_invalid_values: Annotated[bool, SettingRow()] = False
    """Scores that are no numbers become numbers."""
    logits_processor: Annotated[Sequence[Processor], SettingRow(FUNCTIONS, reads=True)] = ()
    """Rules of one's own, after ours and before the draw."""
    constraint: Annotated[Any, SettingRow(CONSTRAINT)] = None
    """A `Constraint`: which ids are possible at each step."""

    num_return_sequences: Annotated[int, SettingRow(COUNT)] = 1
    """Several answers to each prompt, which is computed once; they stand next to each other."""

    use_cache: Annotated[bool, SettingRow(state=True, alone=True)] = True
    """False computes the whole row anew for every token: right, slow, and good for comparing."""
    cache: Annotated[Any, SettingRow(key="cache_implementation", state=True, alone=True)] = "dynamic"
    """`dynamic`, `static`, or a transformers cache that holds the first columns of the batch."""
    cache_length: Annotated[int | None, SettingRow(COUNT, key="max_cache_len", state=True, alone=True)] = None
    """Columns of a static cache; None: as many as this call can need."""
    chunk: Annotated[int | None, SettingRow(COUNT, key="prefill_chunk_size", state=True, alone=True)] = None
    """Prompts are computed in passes of at most so many columns."""
    compile: Annotated[bool | str | Callable[..., Any], SettingRow(alone=True)] = False
    """Compile the decode step, over a static cache; anything but a bool is a backend of torch.compile."""
    attend: Annotated[Attend | None, SettingRow(FUNCTION, state=True, alone=True)] = None
    """A free rule of who sees whom, as in `sequence.masks`."""

    keep_state: Annotated[bool, SettingRow(alone=True)] = False
    """Give back where it ended, so that it can be extended and decoded on. Rows that end then stay in the batch."""
    output_logits: Annotated[bool, SettingRow(shows=True)] = False
    output_scores: Annotated[bool, SettingRow(shows=True)] = False
    output_hidden_states: Annotated[bool | Capture, SettingRow(shows=True)] = False
    output_attentions: Annotated[bool | Capture, SettingRow(shows=True)] = False

    hf: Mapping[str, Any] = field(default_factory=dict)
    """Keys that only Hugging Face's engine honors."""

    def __post_init__(self) -> None:
        given: Any = self.seed
        if hasattr(given, "tolist"):  # an array, a tensor, a number of numpy's: plain for all who read it
            object.__setattr__(self, "seed", given.tolist())
        if self.compile and isinstance(self.cache, str) and self.cache == "dynamic" and self.use_cache:
            object.__setattr__(self, "cache", "static")  # compiled steps need tensors that stay where they are
        for name in self._touched:
            allowed, value = _ALLOWED.get(name), getattr(self, name)
            if allowed is not None and value is not None and not allowed.admits(value):
                raise GenerationError(f"{name} is {value!r:.60}; expected {allowed.expected}")
        _check_together(self)

    @cached_property
    def _touched(self) -> list[str]:
        """The settings that hold another object than their default."""
        given = vars(self)
        return [name for name, default in _DEFAULTS.items() if given[name] is not default]

    @property
    def samples(self) -> bool:
        if self.do_sample is not None:
            return self.do_sample
        shaping = [name for name in self._touched if name in SHAPING]
        return any(getattr(self, name) not in (None, ROWS[name].off) for name in shaping) and self.temperature != 0

    @property
    def stops(self) -> tuple[str, ...]:
        return texts_of(self.stop_strings)

    @cached_property
    def differing(self) -> list[str]:
        """The settings that differ from their defaults."""
        return [name for name in self._touched if getattr(self, name) != _DEFAULTS[name]]

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


_HINTS = get_type_hints(DecodeConfig, include_extras=True)
ROWS: dict[str, SettingRow] = {
    name: hint.__metadata__[0] for name, hint in _HINTS.items() if get_origin(hint) is Annotated
}
_ALLOWED = {name: row.allowed for name, row in ROWS.items() if row.allowed is not None}
SHAPING = tuple(name for name, row in ROWS.items() if row.shapes)
_DEFAULTS: dict[str, Any] = {
    one.name: {} if one.default_factory is dict else one.default for one in fields(DecodeConfig)
}
_OURS = {name: OptionKey("ours", setting=name) for name in ROWS}
KEYS: Mapping[str, OptionKey] = {**_OURS, **{row.key: _OURS[name] for name, row in ROWS.items() if row.key}, **FOREIGN}
"""Every option by every name that it has, and what becomes of it."""
# What an option says for itself undoes in a config that it is laid over.
_OVERRULES = {
    "max_new_tokens": ("max_length",),
    "max_length": ("max_new_tokens",),
    "do_sample": ("do_sample", *SHAPING),
}


def settings_of(settings: DecodeConfig | None = None, *, generation_config: Any = None, **options: Any) -> DecodeConfig:
    """Settings from settings, a transformers `GenerationConfig` and options by name; the later wins."""
    given: dict[str, Any] = {}
    if generation_config is not None:
        keys = generation_config if isinstance(generation_config, Mapping) else vars(generation_config)
        given = {key: value for key, value in keys.items() if value is not None and not key.startswith("_")}
        for name, undone in _OVERRULES.items():
            if options.get(name) is not None and options[name] is not True:
                given = {key: value for key, value in given.items() if key not in undone}
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for name, value in (given | options).items():
        key = KEYS.get(name)
        if key is None:
            known = [name for name, key in KEYS.items() if key.fate not in ("none", "refused")]
            raise UnknownNameError("generation option", name, [*known, *QUESTIONS])
        if key.fate == "refused":
            raise GenerationError(f"`{name}` is not supported: {key.why}")
        if key.setting is None or (name == "cache_implementation" and value not in ("dynamic", "static")):
            if key.fate != "none":
                theirs[name] = value  # quantized and offloaded caches too are the library's own
        else:
            ours[key.setting] = _DEFAULTS[key.setting] if value is None else value
    if theirs:
        ours["hf"] = {**(settings.hf if settings else {}), **theirs}
    return DecodeConfig(**ours) if settings is None else replace(settings, **ours)


def _check_together(given: DecodeConfig) -> None:
    """What no setting says alone."""
    if given.max_new_tokens is not None and given.max_length is not None:
        raise ConfigError("max_new_tokens and max_length both say when to stop; give one of them")
    if given.max_new_tokens is not None and given.min_new_tokens > given.max_new_tokens:
        raise GenerationError(
            f"min_new_tokens={given.min_new_tokens} is more than max_new_tokens={given.max_new_tokens}"
        )
    if given.do_sample and given.temperature == 0:
        raise GenerationError(
            "do_sample=True with temperature=0: sampling needs one above 0; greedy is do_sample=False"
        )
    if given.do_sample is False or given.temperature == 0:
        useless = [name for name in SHAPING if getattr(given, name) not in (None, 0, ROWS[name].off)]
        if useless:
            raise GenerationError(
                f"{', '.join(useless)} would have no effect, for decoding is greedy (do_sample={given.do_sample}, "
                f"temperature={given.temperature}); leave it out, or sample"
            )
    if given.num_return_sequences > 1 and not given.samples and not given.hf.get("num_beams"):
        raise GenerationError(
            f"num_return_sequences={given.num_return_sequences} without sampling gives the same answer each time; set a "
            "temperature, or num_beams"
        )
    if not given.use_cache:
        for name in ("compile", "chunk", "cache_length"):
            if getattr(given, name):
                raise ConfigError(f"`{name}` is about a cache, and use_cache=False keeps none")


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What may stand beside a prompt."""

    system: str | None = None
    """A system prompt, before everything else."""
    images: Sequence[Any] = ()
    """Image files or images, in the order of the conversation's image parts; where it has none, before the question."""
    page: Any = None
    """Lines of a page, each {text, box} with boxes 0..1000, or a JSON file of them; or a page in its own unit: a `Page`, our
    JSON of one, a file that `read_document` reads. Where the conversation has no page, before the question."""
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
        return [name for name in QUESTIONS if _is_given(getattr(self, name))]


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and (isinstance(value, torch.Tensor) or value != ())


QUESTIONS = tuple(one.name for one in fields(Question))


def question_of(options: Mapping[str, Any]) -> tuple[Question, dict[str, Any]]:
    """What is about the prompt, and all other options."""
    about = options.keys() & QUESTIONS
    own = {name: options[name] for name in about if options[name] is not None}
    return Question(**own), {name: value for name, value in options.items() if name not in about}


def about_prompt(options: Mapping[str, Any]) -> Question:
    """A question of options that are all about the prompt."""
    question, others = question_of(options)
    if others:
        raise UnknownNameError("option", next(iter(others)), QUESTIONS)
    return question

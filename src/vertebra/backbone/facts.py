"""Facts of one model: from its family's row, or read off the loaded model where no row describes it.

A model that is in no table works from its path all the same; what was read instead of known is listed as a guess, and
`vertebra check` shows it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from vertebra.backbone.families.models import FAMILIES, Family, builder_name, row_named
from vertebra.backbone.habits import TokenizerHabits, anchor_of, token_id
from vertebra.errors import BackboneError
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.chat_template import TemplatePromptBuilder
from vertebra.prompt.registry import prompt_builder
from vertebra.sequence.masks import AttentionFacts

GUESSED = ("anchor", "pad rule", "prompt builder", "layer class", "half-precision type")
"""What is read off a model that no family describes."""


NO_FAMILY = "none"
"""What to give for a family when the facts are to be read off the model."""


def family_of(name: str | None, llm: Any, tokenizer: Any, habits: TokenizerHabits) -> tuple[Family, bool]:
    """The family's row, and whether it had to be guessed. Without a name the model's own facts may find the row."""
    if name is None:
        found = recognized(llm, tokenizer, habits)
        if found is not None:
            return found, False
        name = NO_FAMILY
    if name in FAMILIES:
        return FAMILIES[name], False
    path, layers = find_layers(llm)
    return (
        Family(
            name=f"{llm.config.model_type}-like" if name == NO_FAMILY else name,
            model_type=llm.config.model_type,
            llm_cls=type(llm).__name__,
            layer_cls=type(layers[0]).__name__,
            layers=path,
            norm=_norm_after(llm, path),
            anchor=anchor_of(habits),
            builders=(("", _readable_builder(tokenizer)),),
            half_precision=_half_precision(llm.config),
            pad_token=None,
            multiple_of=64,
            # Read off nothing: packing by position is an optimization, and its absence is always right.
            isolates_by_position=False,
        ),
        True,
    )


def recognized(llm: Any, tokenizer: Any, habits: TokenizerHabits) -> Family | None:
    """The family that architecture, vocabulary and habits name; None where none does, or none is sure."""
    fitting = [
        family
        for family in FAMILIES.values()
        if family.marks
        and (family.model_type, family.llm_cls) == (llm.config.model_type, type(llm).__name__)
        and all(token_id(tokenizer, mark) is not None for mark in family.marks)
        and (family.anchor == "bos") is habits.adds_bos
    ]
    return fitting[0] if len(fitting) == 1 else None


def builder_for(family: Family, place: str, tokenizer: Any) -> str:
    """The name of the prompt builder of a model that was named by its place: as its id has it, where there is one."""
    row = row_named(place)
    if row is not None and row.family == family.name:
        return builder_name(family, row.id)
    return dict(family.builders).get("") or _readable_builder(tokenizer)


def _readable_builder(tokenizer: Any) -> str:
    return "template" if tokenizer.chat_template else "pure"


def find_layers(llm: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder layers of an unknown model: its longest list of modules of one class."""
    lists = [
        (name, module)
        for name, module in llm.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(layer) for layer in module}) == 1
    ]
    if not lists:
        raise BackboneError(
            f"{type(llm).__name__} has no list of decoder layers; register a family that names its path"
        )
    # Of equally long lists the outermost one holds the layers; experts and heads lie inside of it.
    return max(lists, key=lambda pair: (len(pair[1]), -pair[0].count(".")))


def submodule(llm: nn.Module, path: str, what: str) -> nn.Module:
    """A module by its dotted path, or an error that names family table and model."""
    try:
        return llm.get_submodule(path)
    except AttributeError as error:
        raise BackboneError(
            f"{type(llm).__name__} has no `{path}`, where its family's row places its {what}"
        ) from error


def _norm_after(llm: nn.Module, layers_path: str) -> str:
    """The last norm beside the layers, which follows them in every decoder that we know."""
    stem = layers_path.rpartition(".")[0]
    names = [name for name, child in llm.get_submodule(stem).named_children() if "norm" in type(child).__name__.lower()]
    return f"{stem}.{names[-1]}" if names else ""


def _half_precision(config: Any) -> str:
    return "float16" if "float16" in str(config.dtype) and "bfloat16" not in str(config.dtype) else "bfloat16"


def builder_class(name: str, tokenizer: Any) -> type[PromptBuilder]:
    """The prompt builder of a name, made for a tokenizer where the name alone does not settle it."""
    if name == TemplatePromptBuilder.name:
        return TemplatePromptBuilder.of(tokenizer)
    # these end answers with `</s>`; on a tokenizer that has another end, that would be plain text
    eos = tokenizer.eos_token if name in ("pure", "bare") and tokenizer.eos_token != "</s>" else None
    return prompt_builder(name, eos=eos)


def attention_facts(config: Any, *, isolates_by_position: bool) -> AttentionFacts:
    """What masks need of a model: kernel, window, layer types, a learned table of positions."""
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and "sliding_attention" not in layer_types:
        window = None
    rotary = getattr(config, "rope_parameters", None) is not None
    return AttentionFacts(
        kernel=config._attn_implementation,
        window=window,
        layer_types=tuple(layer_types) if layer_types is not None else None,
        isolates_by_position=isolates_by_position,
        max_positions=None if rotary else getattr(config, "max_position_embeddings", None),
    )

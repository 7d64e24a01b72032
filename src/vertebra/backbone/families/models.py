"""Families and models as plain strings: no torch, no transformers, so that listing them costs nothing.

A family's facts are required fields: a row that lacks one fails at import. Adding a model is one line in `MODELS`;
adding a family is one `Family` and its models. Users add theirs with `register_family` and `register_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vertebra.errors import ConfigError

Anchor = Literal["bos", "none", "prepend bos"]
"""Where outside embeddings may enter: after the BOS that the tokenizer adds; at the very start, since there is no
BOS; after a BOS that the prompt builder writes because the tokenizer does not."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The facts in which one family of models differs from another."""

    name: str
    model_type: str
    """`config.model_type` of its checkpoints."""
    llm_cls: str
    """The explicit class in transformers."""
    layer_cls: str
    """The class of one decoder layer, in the same module."""
    layers: str
    """Dotted path from the model to its list of decoder layers."""
    norm: str
    """Dotted path to the norm after the last layer."""
    anchor: Anchor
    builders: tuple[tuple[str, str], ...]
    """(mark in the model's id, name of its prompt builder); the first mark that is found wins, "" matches all."""
    half_precision: str
    pad_token: str | None
    """A pad token that is always added; None: the general rule chooses."""
    multiple_of: int
    """Rows of the matrices are padded to a multiple of this when a pad token has to be added."""
    isolates_by_position: bool
    """Packed samples are kept apart by position ids alone (no mask, no cache)."""
    drops_spare_rows: bool = False
    """Rows beyond the padded vocabulary are cut off when the pad token is added, as the code did that trained its
    checkpoints: Phi-2 has 51200 rows, those have 50304."""
    marks: tuple[str, ...] = ()
    """Tokens by which a folder's vocabulary tells this family from others with the same class. Only families whose rules
    cannot be read off a model have them: a folder that is recognized gets the family's pad and rows, as its ids do."""


@dataclass(frozen=True)
class ModelRow:
    """One id: its family and where its weights live."""

    id: str
    family: str
    hub: str


_LLAMA = {
    "llm_cls": "LlamaForCausalLM",
    "layer_cls": "LlamaDecoderLayer",
    "model_type": "llama",
    "layers": "model.layers",
    "norm": "model.norm",
    "half_precision": "bfloat16",
    "multiple_of": 64,
    "isolates_by_position": True,
}
_SENTENCEPIECE = ("<unk>", "<s>", "</s>")
_CHATML = (("-instruct", "chatml"), ("-base", "pure"))


def _llama_like(name: str, **facts: object) -> Family:
    """A family whose code has LLaMA's layout; only what differs is given."""
    return Family(name=name, **{**_LLAMA, "pad_token": None, **facts})  # type: ignore[arg-type]


def _own_class(prefix: str) -> dict[str, object]:
    return {"llm_cls": f"{prefix}ForCausalLM", "layer_cls": f"{prefix}DecoderLayer"}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _llama_like(
            "llama2",
            anchor="bos",
            builders=(("-pure", "pure"), ("-chat", "llama2-chat"), ("vicuna", "vicuna-v15")),
            pad_token="<PAD>",
            marks=_SENTENCEPIECE,
        ),
        _llama_like("llama3", anchor="bos", builders=(("-instruct", "llama3"), ("-base", "pure"))),
        _llama_like(
            "mistral",
            **_own_class("Mistral"),
            model_type="mistral",
            anchor="bos",
            builders=(("-pure", "pure"), ("-instruct", "mistral-instruct")),
            pad_token="<PAD>",
            marks=_SENTENCEPIECE,
        ),
        _llama_like(
            "phi",
            **_own_class("Phi"),
            model_type="phi",
            norm="model.final_layernorm",
            anchor="prepend bos",
            builders=(("", "phi"),),
            pad_token="<|pad|>",
            drops_spare_rows=True,
            marks=("<|endoftext|>",),
        ),
        _llama_like("phi3", **_own_class("Phi3"), model_type="phi3", anchor="none", builders=(("", "phi3"),)),
        _llama_like("qwen2", **_own_class("Qwen2"), model_type="qwen2", anchor="none", builders=_CHATML),
        _llama_like("qwen2.5", **_own_class("Qwen2"), model_type="qwen2", anchor="none", builders=_CHATML),
        _llama_like("qwen3", **_own_class("Qwen3"), model_type="qwen3", anchor="none", builders=_CHATML),
        _llama_like(
            "opt",
            **_own_class("OPT"),
            model_type="opt",
            layers="model.decoder.layers",
            norm="model.decoder.final_layer_norm",
            anchor="bos",
            builders=(("", "pure"),),
            half_precision="float16",
            isolates_by_position=False,
        ),
        _llama_like(
            "gpt2",
            llm_cls="GPT2LMHeadModel",
            layer_cls="GPT2Block",
            model_type="gpt2",
            layers="transformer.h",
            norm="transformer.ln_f",
            anchor="none",
            builders=(("", "pure"),),
            half_precision="float16",
        ),
        _llama_like(
            "gemma2",
            **_own_class("Gemma2"),
            model_type="gemma2",
            anchor="bos",
            builders=(("-instruct", "gemma"), ("-base", "pure")),
        ),
        _llama_like(
            "gemma3",
            **_own_class("Gemma3"),
            model_type="gemma3_text",
            anchor="bos",
            builders=(("-instruct", "gemma"), ("-base", "pure")),
        ),
        _llama_like("smollm2", anchor="none", builders=_CHATML),
        _llama_like("smollm3", **_own_class("SmolLM3"), model_type="smollm3", anchor="none", builders=_CHATML),
        _llama_like(
            "pythia",
            llm_cls="GPTNeoXForCausalLM",
            layer_cls="GPTNeoXLayer",
            model_type="gpt_neox",
            layers="gpt_neox.layers",
            norm="gpt_neox.final_layer_norm",
            anchor="none",
            builders=(("", "pure"),),
            half_precision="float16",
        ),
    )
}


def _rows(family: str, *pairs: tuple[str, str]) -> list[ModelRow]:
    return [ModelRow(model_id, family, hub) for model_id, hub in pairs]


def _base_and_instruct(family: str, stem: str, hub_base: str, hub_instruct: str) -> list[ModelRow]:
    return _rows(family, (f"{stem}-base", hub_base), (f"{stem}-instruct", hub_instruct))


MODELS: dict[str, ModelRow] = {
    row.id: row
    for rows in (
        _rows(
            "llama2",
            ("llama2-7b-pure", "meta-llama/Llama-2-7b-hf"),
            ("llama2-13b-pure", "meta-llama/Llama-2-13b-hf"),
            ("llama2-7b-chat", "meta-llama/Llama-2-7b-chat-hf"),
            ("llama2-13b-chat", "meta-llama/Llama-2-13b-chat-hf"),
            ("vicuna-v15-7b", "lmsys/vicuna-7b-v1.5"),
            ("vicuna-v15-13b", "lmsys/vicuna-13b-v1.5"),
        ),
        _rows(
            "mistral",
            ("mistral-v0.1-7b-pure", "mistralai/Mistral-7B-v0.1"),
            ("mistral-v0.1-7b-instruct", "mistralai/Mistral-7B-Instruct-v0.1"),
            ("mistral-v0.3-7b-pure", "mistralai/Mistral-7B-v0.3"),
            ("mistral-v0.3-7b-instruct", "mistralai/Mistral-7B-Instruct-v0.3"),
            ("mistral-nemo-12b-pure", "mistralai/Mistral-Nemo-Base-2407"),
            ("mistral-nemo-12b-instruct", "mistralai/Mistral-Nemo-Instruct-2407"),
        ),
        _rows("phi", ("phi-2-3b", "microsoft/phi-2")),
        _rows(
            "phi3",
            ("phi-3-mini-4k", "microsoft/Phi-3-mini-4k-instruct"),
            ("phi-3.5-mini", "microsoft/Phi-3.5-mini-instruct"),
            ("phi-4-mini", "microsoft/Phi-4-mini-instruct"),
        ),
        _base_and_instruct("llama3", "llama3-8b", "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct"),
        _base_and_instruct("llama3", "llama3.1-8b", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
        _base_and_instruct("llama3", "llama3.2-1b", "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
        _base_and_instruct("llama3", "llama3.2-3b", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"),
        *(
            _base_and_instruct("qwen2", f"qwen2-{size.lower()}", f"Qwen/Qwen2-{size}", f"Qwen/Qwen2-{size}-Instruct")
            for size in ("0.5B", "1.5B", "7B")
        ),
        *(
            _base_and_instruct(
                "qwen2.5", f"qwen2.5-{size.lower()}", f"Qwen/Qwen2.5-{size}", f"Qwen/Qwen2.5-{size}-Instruct"
            )
            for size in ("0.5B", "1.5B", "3B", "7B")
        ),
        *(
            _base_and_instruct("qwen3", f"qwen3-{size.lower()}", f"Qwen/Qwen3-{size}-Base", f"Qwen/Qwen3-{size}")
            for size in ("0.6B", "1.7B", "4B", "8B")
        ),
        _rows("opt", *((f"opt-{size}", f"facebook/opt-{size}") for size in ("125m", "350m", "1.3b", "2.7b", "6.7b"))),
        _rows(
            "gpt2", *((name, f"openai-community/{name}") for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"))
        ),
        _base_and_instruct("gemma2", "gemma2-2b", "google/gemma-2-2b", "google/gemma-2-2b-it"),
        _base_and_instruct("gemma2", "gemma2-9b", "google/gemma-2-9b", "google/gemma-2-9b-it"),
        *(
            _base_and_instruct("gemma3", f"gemma3-{size}", f"google/gemma-3-{size}-pt", f"google/gemma-3-{size}-it")
            for size in ("270m", "1b", "4b")
        ),
        *(
            _base_and_instruct(
                "smollm2",
                f"smollm2-{size.lower()}",
                f"HuggingFaceTB/SmolLM2-{size}",
                f"HuggingFaceTB/SmolLM2-{size}-Instruct",
            )
            for size in ("135M", "360M", "1.7B")
        ),
        _base_and_instruct("smollm3", "smollm3-3b", "HuggingFaceTB/SmolLM3-3B-Base", "HuggingFaceTB/SmolLM3-3B"),
        _rows(
            "pythia",
            *(
                (f"pythia-{size}", f"EleutherAI/pythia-{size}")
                for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b")
            ),
        ),
    )
    for row in rows
}
# Gemma-3's smallest checkpoint carries no `-pt` in its name.
MODELS["gemma3-270m-base"] = ModelRow("gemma3-270m-base", "gemma3", "google/gemma-3-270m")


def builder_name(family: Family, model_id: str) -> str:
    """The name of the prompt builder that an id asks for."""
    for mark, name in family.builders:
        if mark in model_id:
            return name
    marks = ", ".join(f"`{mark}`" for mark, _ in family.builders)
    raise ConfigError(
        f"No PromptBuilder defined for LLM Backbone `{model_id}`. An id of family `{family.name}` holds one of {marks}."
    )


def row_named(name: str) -> ModelRow | None:
    """The row whose hub name this is, or whose hub name ends like this folder's."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    exact = [row for row in MODELS.values() if row.hub == name]
    alike = [row for row in MODELS.values() if row.hub.rpartition("/")[2].lower() == last]
    return next(iter(exact + alike), None)

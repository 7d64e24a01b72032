"""`LLMBackbone`: what every language backbone answers. The abstract members are enough: the others follow from them.

Abstract or final: a subclass implements the abstract members, sets `llm` (a causal model of transformers) and `tokenizer`,
and overrides nothing else; growth, decoding, checks, training and multimodal models then take it. It knows no image and
no optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from vertebra.backbone import habits as tokenizer_habits
from vertebra.backbone.facts import attention_facts, family_of, submodule
from vertebra.backbone.families.models import Anchor, Family
from vertebra.backbone.growth import Growth
from vertebra.backbone.matrices import num_rows
from vertebra.backbone.saving import write_backbone
from vertebra.backbone.weights import left_on_meta, some
from vertebra.errors import BackboneError, ConfigError
from vertebra.folders import require_free, write_whole
from vertebra.prompt.registry import prompt_builder, prompt_builder_names
from vertebra.sequence.masks import AttentionFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.modeling_outputs import CausalLMOutputWithPast

    from vertebra.prompt.builders import PromptBuilder

_OF_LLM = (
    "config",
    "generation_config",
    "base_model",
    "dtype",
    "device",
    "get_input_embeddings",
    "get_output_embeddings",
)
"""What the members that are not abstract read of `llm`; every causal model of transformers has them."""


class LLMBackbone(nn.Module, ABC):
    """A causal language model with its tokenizer: embeds ids, runs embeddings, and has its own facts."""

    llm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    inference_mode: bool = False
    llm_max_length: int = 2048
    quantization: str | None = None
    facts_guessed: bool = False
    """Whether the model is in no table, and its facts were read off it."""
    _awaiting_weights: bool = True

    def __init__(self, llm_backbone_id: str) -> None:
        super().__init__()
        self.identifier = llm_backbone_id
        self.growths: list[Growth] = []
        self.name = llm_backbone_id
        """What it goes by: a folder of ours has an identifier too, that of the model which it was made from."""

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the model, grown with it."""
        return self.tokenizer

    @abstractmethod
    def get_fsdp_wrapping_policy(self) -> Callable[..., Any]:
        """The policy that makes every decoder layer an FSDP unit."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""

    @abstractmethod
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        logits_to_keep: int | torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        """Run the model on ids or on embeddings, never on both. What is not requested comes back as None."""

    @abstractmethod
    def embed_input_ids(self, input_ids: torch.LongTensor) -> torch.FloatTensor:
        """The embeddings of ids, exactly as `forward(input_ids)` would make them."""

    @property
    @abstractmethod
    def prompt_builder_fn(self) -> type[PromptBuilder]:
        """The class that builds this model's prompts."""

    @property
    @abstractmethod
    def transformer_layer_cls(self) -> type[nn.Module]:
        """The class of one decoder layer."""

    @property
    @abstractmethod
    def half_precision_dtype(self) -> torch.dtype:
        """The 16-bit type that this family was trained in."""

    @property
    @abstractmethod
    def last_layer_finetune_modules(self) -> Sequence[nn.Module]:
        """Embedding, last decoder layer and head: what last-layer fine-tuning trains."""

    @property
    def embed_dim(self) -> int:
        """The model's hidden size (an embedding matrix may be narrower: opt-350m)."""
        return int(self.llm.config.hidden_size)

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding; always set, never an end of sequence unless the user insists."""
        pad = self.tokenizer.pad_token_id
        if pad is None:
            raise BackboneError(f"the tokenizer of `{self.identifier}` has lost its pad token; set `pad_token` again")
        return int(pad)

    def require_members(self) -> None:
        """One error that names everything which growth, decoding and checks need and this backbone lacks; looked at until the
        weights are there, and then no more."""
        if not self._awaiting_weights:
            return
        llm = getattr(self, "llm", None)
        lacking = ["tokenizer"] if getattr(self, "tokenizer", None) is None else []
        lacking += ["llm"] if llm is None else [f"llm.{name}" for name in _OF_LLM if not hasattr(llm, name)]
        if lacking:
            raise BackboneError(
                f"`{self.identifier}` ({type(self).__name__}) has the abstract members, but lacks {', '.join(lacking)}. "
                "Decoding, growth and checks read these: set `self.llm` to a causal model of transformers and "
                "`self.tokenizer` to its tokenizer, or give yours these members"
            )

    def _require_weights(self) -> None:
        """Stop where something is missing that every use needs; looked at until all is there, and then no more."""
        if not self._awaiting_weights:
            return
        self.require_members()
        missing, total = left_on_meta(self.llm), len(list(self.llm.parameters()))
        if missing:
            lacks = f"has no weights yet ({len(missing)} tensors)"
            if len(missing) < total:
                lacks = f"lacks {len(missing)} of {total} tensors ({some(missing)})"
            raise BackboneError(
                f"`{self.identifier}` was built in inference mode and {lacks}; call load_weights(folder) first, or "
                "load_state_dict with all of them"
            )
        self._awaiting_weights = False
        self._weights_came()

    def set_to_train(self) -> Self:
        """From a backbone that was built to run to one that was built to train; its weights may be yet to come."""
        self.llm.train()
        self.inference_mode = False
        self._awaiting_weights = False
        self.tokenizer.padding_side = "right"
        self.llm.enable_input_require_grads()
        return self

    def _weights_came(self) -> None:
        """Called once, when a state dict has brought all weights."""

    def _model(self) -> PreTrainedModel:
        if self._awaiting_weights:
            self.require_members()
        return self.llm

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write model, tokenizer and record as one folder, whole or not at all."""
        self._require_weights()
        folder = Path(folder).expanduser()
        require_free(folder, overwrite=overwrite)
        return write_whole(folder, self.write, replace=True)

    def write(self, folder: Path) -> None:
        """The files of `save` into a folder that exists."""
        write_backbone(self, folder)

    @cached_property
    def llm_family(self) -> str:
        """The family's name, or one that no table has."""
        return f"{self._model().config.model_type}-like"

    @cached_property
    def habits(self) -> tokenizer_habits.TokenizerHabits:
        """What the tokenizer does, found by encoding."""
        self.require_members()
        return tokenizer_habits.probe(self.tokenizer)

    @cached_property
    def family(self) -> Family:
        """The facts of the model's family; read off it where no table has it."""
        return family_of(self.llm_family, self._model(), self.tokenizer, self.habits)[0]

    @property
    def builder(self) -> str:
        """The registered name of the prompt builder."""
        name = getattr(self.prompt_builder_fn, "name", None)
        if name not in prompt_builder_names() or not issubclass(self.prompt_builder_fn, prompt_builder(name)):
            raise ConfigError(
                f"the prompt builder {self.prompt_builder_fn.__name__} of `{self.identifier}` has no registered name; "
                "register it with `register_prompt_builder`"
            )
        return name

    @property
    def anchor(self) -> Anchor:
        """Where outside embeddings may enter: `bos`, `none` or `prepend bos`."""
        return self.family.anchor

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, first to last."""
        found = submodule(self._model(), self.family.layers, "decoder layers")
        if not isinstance(found, nn.ModuleList):
            raise BackboneError(f"`{self.family.layers}` of {type(self.llm).__name__} is no list of layers")
        return found

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last layer; None where a model has none (opt-350m)."""
        stem, _, name = self.family.norm.rpartition(".")
        return getattr(submodule(self._model(), stem, "norm"), name, None) if name else None

    @property
    def embedding_width(self) -> int:
        """Columns of the embedding matrix: what projectors aim at; narrower than `embed_dim` in opt-350m."""
        return int(self._model().get_input_embeddings().weight.shape[1])

    @property
    def num_rows(self) -> int:
        """Rows of the embedding matrix, unused ones counted."""
        return num_rows(self._model())

    @property
    def attn(self) -> str:
        """The attention kernel in use."""
        return self._model().config._attn_implementation

    @property
    def dtype(self) -> torch.dtype:
        return self._model().dtype

    @property
    def device(self) -> torch.device:
        return self._model().device

    @contextmanager
    def kernel(self, name: str) -> Iterator[None]:
        """Run with another attention kernel inside the block."""
        before = self.attn
        self.llm.set_attn_implementation(name)
        try:
            yield
        finally:
            self.llm.set_attn_implementation(before)

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer."""
        return tokenizer_habits.eos_ids(self.tokenizer, self._model().generation_config)

    @property
    def attention_facts(self) -> AttentionFacts:
        """What masks need of this model."""
        return attention_facts(self._model().config, isolates_by_position=self.family.isolates_by_position)

"""`LLMBackbone`: what every language backbone answers, whatever library stands behind it.

Abstract or final: a subclass implements the abstract members and overrides nothing else. It knows no family, no
image and no optimizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vertebra.errors import BackboneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.modeling_outputs import CausalLMOutputWithPast

    from vertebra.prompt.builders import PromptBuilder


class LLMBackbone(nn.Module, ABC):
    """A causal language model with its tokenizer: embeds ids, runs embeddings, and tells its own facts."""

    llm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, llm_backbone_id: str) -> None:
        super().__init__()
        self.identifier = llm_backbone_id
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

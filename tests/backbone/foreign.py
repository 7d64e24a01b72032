"""A backbone as somebody else writes it: the abstract members of `LLMBackbone` and nothing more."""

from __future__ import annotations

from functools import partial

import torch
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from vertebra import LLMBackbone, grow_vocabulary
from vertebra.prompt.formats import PurePromptBuilder


class ForeignBackbone(LLMBackbone):
    """GPT-2, loaded in its author's own way."""

    def __init__(self, llm_backbone_id: str, folder: str) -> None:
        super().__init__(llm_backbone_id)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.llm = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        grow_vocabulary(self, ["<pad>"], is_pad=True)
        self.llm.enable_input_require_grads()

    def get_fsdp_wrapping_policy(self):
        return partial(transformer_auto_wrap_policy, transformer_layer_cls={GPT2Block})

    def enable_gradient_checkpointing(self):
        for block in self.llm.transformer.h:  # the library's switch, without its names of different versions
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
        labels=None, use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None,
        *, logits_to_keep=None, num_items_in_batch=None,
    ):  # fmt: skip
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return self.llm(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, inputs_embeds=inputs_embeds, labels=labels, use_cache=use_cache,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=return_dict,
            logits_to_keep=logits_to_keep or 0, num_items_in_batch=num_items_in_batch,
        )  # fmt: skip

    def embed_input_ids(self, input_ids):
        return self.llm.transformer.wte(input_ids)

    @property
    def prompt_builder_fn(self):
        return PurePromptBuilder.ending(self.tokenizer.eos_token)

    transformer_layer_cls = GPT2Block
    half_precision_dtype = torch.float16

    @property
    def last_layer_finetune_modules(self):
        return (self.llm.transformer.wte, self.llm.transformer.h[-1], self.llm.lm_head)

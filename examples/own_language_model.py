"""A language model of your own behind the interface: the abstract members of `LLMBackbone`, a model, a tokenizer.

It then decodes with the cache, is checked, grows, trains, and carries a model with images. Here it is a GPT-2.
"""

from functools import partial

import torch
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, GPT2LMHeadModel, logging
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

import vertebra as vt
from vertebra.backbone import tiny_checkpoint


class MyBackbone(vt.LLMBackbone):
    transformer_layer_cls = GPT2Block
    half_precision_dtype = torch.float16

    def __init__(self, folder):
        super().__init__("my-gpt2")
        self.llm = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        vt.grow_vocabulary(self, ["<pad>"], is_pad=True)

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, *, logits_to_keep=None, **options):
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)  # GPT-2 itself would count the padding
        options |= {"attention_mask": attention_mask, "position_ids": position_ids}
        return self.llm(input_ids=input_ids, logits_to_keep=logits_to_keep or 0, **options)

    def embed_input_ids(self, input_ids):
        return self.llm.transformer.wte(input_ids)

    def get_fsdp_wrapping_policy(self):
        return partial(transformer_auto_wrap_policy, transformer_layer_cls={GPT2Block})

    def enable_gradient_checkpointing(self):
        self.llm.enable_input_require_grads()
        for block in self.llm.transformer.h:
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    @property
    def prompt_builder_fn(self):
        return vt.PurePromptBuilder.ending(self.tokenizer.eos_token)

    @property
    def last_layer_finetune_modules(self):
        return (self.llm.transformer.wte, self.llm.transformer.h[-1], self.llm.lm_head)


logging.set_verbosity_error()
backbone = MyBackbone(tiny_checkpoint("tiny-gpt2"))
print("answer:", vt.generate(backbone, "What is on the table?", max_new_tokens=20))
for result in vt.check(backbone, only=["embeddings", "cached", "left-padded", "batch", "packed", "growth"]).results:
    print(f"{result.status:5} {result.name:12} {result.message}")

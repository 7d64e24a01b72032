"""Load a backbone, build a prompt, generate. Any id of `vertebra models`, a folder or a hub name does."""

import sys

import torch

from vertebra import load_backbone, render

backbone = load_backbone(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2.5", inference_mode=True, weights=True)
prompt = render(
    [{"role": "user", "content": "What is on the table?"}],
    backbone.prompt_builder_fn,
    backbone.tokenizer,
    anchor=backbone.anchor,
)
ids = torch.tensor(prompt.ids)[None]
answer = backbone.llm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20)
print(backbone.tokenizer.decode(answer[0, ids.shape[1] :]))

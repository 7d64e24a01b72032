"""A plain PyTorch training loop around a tiny backbone: answers before and after, and a picture of the loss."""

import sys

import torch
from matplotlib import pyplot

from vertebra import collate, generate, load_backbone, render
from vertebra.sequence import plan_attention, sequence_loss

said = {"What is in the cup?": "Hot tea.", "Where is the red block?": "On the left.", "Who moves it?": "The robot."}
talks = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in said.items()]
backbone = load_backbone("tiny-llama2")
tokenizer, builder = backbone.tokenizer, backbone.prompt_builder_fn
batch = collate([render(talk, builder, tokenizer) for talk in talks], pad_id=backbone.pad_token_id)


def answer(talk):
    return str(generate(backbone, render(talk[:1], builder, tokenizer), max_new_tokens=12))


print("before:", [answer(talk) for talk in talks])
optimizer = torch.optim.AdamW(backbone.train().parameters(), lr=3e-3)
attention, losses = plan_attention(batch, backbone.attention_facts), []
for _ in range(60):
    logits = backbone(batch.input_ids, **attention.kwargs).logits
    loss = sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} -> {losses[-1]:.4f}; after:", [answer(talk) for talk in talks])
pyplot.semilogy(losses)
pyplot.savefig(sys.argv[1] if len(sys.argv) > 1 else "loss.png")

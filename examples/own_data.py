"""Your own rows as exact batches, in a training loop of your own that is interrupted and resumes bit for bit.

`batches` reads, encodes, packs and loads the rows as `vertebra train` does. The loader's state is a few numbers; beside
the weights and the optimizer's state it is all that a resume needs.
"""

import json
import tempfile
from itertools import chain, islice, repeat
from pathlib import Path

import torch

import vertebra as vt
from vertebra.data import batches

ANSWERS = {"What is in the cup?": "Hot tea.", "Where is the red block?": "On the left.", "Who moves it?": "The robot."}
ROWS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    for question, answer in ANSWERS.items()
]


def begin(path):
    """A model to train, its optimizer, and a loader of batches of one row."""
    model = vt.load("tiny-llama2", inference_mode=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return model, optimizer, batches(model, path, batch=1, batching="shuffled", cache=False)


def train(model, optimizer, loader, steps):
    """The losses of so many steps; a new epoch begins where one ends."""
    losses = []
    for batch in islice(chain.from_iterable(repeat(loader)), steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


folder = Path(tempfile.mkdtemp())
path = folder / "rows.jsonl"
path.write_text("\n".join(json.dumps(row) for row in ROWS))
whole = train(*begin(path), 60)

interrupted = begin(path)
train(*interrupted, 25)
torch.save([part.state_dict() for part in interrupted], folder / "state.pt")

resumed = begin(path)
for part, state in zip(resumed, torch.load(folder / "state.pt"), strict=True):
    part.load_state_dict(state)
losses = train(*resumed, 35)
print(f"loss {whole[0]:.2f} -> {losses[-1]:.4f}; resumed at step 25 of 60, the same losses: {losses == whole[25:]}")
for question in ANSWERS:
    print(question, "->", vt.generate(resumed[0], question, max_new_tokens=12))

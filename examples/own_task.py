"""A kind of work of your own, in one class: the largest of three digits. `vertebra train` would resume, evaluate and draw it
like any other kind; a recipe names it as `data: {kind: "own_task:Largest", …}`.
"""

import itertools
import tempfile
from pathlib import Path

import torch

import vertebra as vt
from vertebra.config import build
from vertebra.sequence import supervised_positions
from vertebra.tasks import Task, register_task
from vertebra.training import RunConfig


@register_task
class Largest(Task):
    """`4 7 2 >` is answered by `7`."""

    name = "largest"
    reads = ("text",)

    def sequence(self, sample, job):
        asked = self.prompt(sample.text, job)
        answer = job.model.tokenizer(max(sample.text.split()), add_special_tokens=False).input_ids
        return vt.TokenSequence.of([*asked.ids, *answer], weight=[0] * len(asked) + [1] * len(answer))

    def prompt(self, text, job):
        return vt.TokenSequence.of(job.model.tokenizer(f"{text} >").input_ids)

    def measure(self, learner, held_out):
        right = torch.zeros(2, dtype=torch.float64)
        for batch in held_out.batches():
            at = supervised_positions(batch)
            logits = learner(call=lambda model, batch=batch: model(**batch, return_loss=False, logits_to_keep=0).logits)
            right += torch.tensor([(at.select(logits).argmax(-1) == at.targets).sum(), len(at)])
        hits, total = held_out.over_ranks(right).tolist()
        return {"right": hits / total}


folder = Path(tempfile.mkdtemp())
(folder / "rows.txt").write_text("\n".join(" ".join(digits) for digits in itertools.product("0123456789", repeat=3)))
run = build(RunConfig, {
    "name": "largest",
    "model": {"backbone": "tiny-llama2"},
    "data": {"kind": "largest", "path": str(folder / "rows.txt"), "held_out": 0.1, "block": 128},
    "optim": {"lr": 3e-3, "batch": 4},
    "watch": {"bar": False, "samples": ["4 7 2", "9 0 3"], "sample_tokens": 2},
    "steps": 120,
})  # fmt: skip
outcome = vt.train(run, out=folder / "run")
print(f"right on held-out rows: {outcome.found['right']:.0%}; curves and samples in {outcome.folder / 'report.html'}")

"""Fine-tune by LoRA, run the adapter on its base, and merge it into a plain Hugging Face folder.

The three answers: the base alone, the base with its adapter (named by the adapter's folder), and the merged model.
"""

import sys
import tempfile
from pathlib import Path

import vertebra as vt

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
question = "Put the red block on the shelf."

run = vt.train("chat-lora", ["watch.bar=false"], out=folder / "run", overwrite=True)
report = vt.merge("tiny-llama2", run.model, folder / "merged", overwrite=True)

print(f"{run.steps} steps; held-out loss {run.found['loss']:.3f}; curves in {folder / 'run' / 'report.html'}")
print(report)
for name, model in (("base", "tiny-llama2"), ("adapter", run.model), ("merged", folder / "merged")):
    print(f"{name:8}", vt.generate(model, question, max_new_tokens=24))

"""Load a model and ask it: an id of `vertebra models`, a folder, a hub name, an adapter, a run, or a GGUF file.

The tiny models are random: they answer at once, in random words. `vertebra get smollm2-135m-instruct` fetches one that
can talk; then run `python examples/load_and_generate.py smollm2-135m-instruct`.
"""

import sys

import vertebra as vt

model = vt.load(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2.5")
question = "What is on the table?"
print("greedy:  ", vt.generate(model, question, max_new_tokens=20))

print("sampled:  ", end="")
for step in vt.stream(model, question, max_new_tokens=20, temperature=0.8, top_p=0.95, seed=1):
    print(step.text[0], end="", flush=True)  # as it comes

talk = [
    {"role": "user", "content": question},
    {"role": "assistant", "content": "A cup and a plate."},
    {"role": "user", "content": "And beside them?"},
]
answer = vt.generate(model, talk, max_new_tokens=20)
print("\ndialog:  ", answer)
print(f"ended by {answer.stop_reason[0]}; positions in each pass: {answer.shape_of_passes}")

"""Answers that must have a form: one of a list, a regular expression, a JSON schema, some ids alone.

Even a tiny model with random weights then answers in the form: what it cannot say is ruled out before it chooses.
"""

import json

import vertebra as vt
from vertebra.decode import AllowedIds, json_schema, one_of, regex

model = vt.load("tiny-llama2")
question = "Where is the cup?"

print("one of:    ", vt.generate(model, question, constraint=one_of(["on the left", "on the right"])))
print("expression:", vt.generate(model, question, constraint=regex(r"(left|right) [0-9]{1,3} cm")))

place = {
    "type": "object",
    "properties": {"object": {"enum": ["cup", "plate"]}, "left": {"type": "boolean"}},
    "required": ["object", "left"],
}
answer = vt.generate(model, question, constraint=json_schema(place), max_new_tokens=60)
print("JSON:      ", json.loads(answer.text[0]))

bins = AllowedIds(range(700, 764))  # an action's ids: only these rows of the head are computed
action = vt.generate(model, question, constraint=bins, eos_token_id=(), max_new_tokens=7)
print("action ids:", action.tokens[0])

print("without a constraint, by likelihood:")
print(vt.score(model, question, ["on the left", "on the right"]))

"""Ask a model. Any id of `vertebra models`, a folder or a hub name does."""

import sys

import vertebra as vt

name = sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2.5"
print(vt.generate(name, "What is on the table?", max_new_tokens=20))

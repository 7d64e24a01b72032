"""A trace: what decoding really ran for an answer, as a table, as data, and as one HTML page.

`vertebra trace MODEL "prompt" --html trace.html` does the same from the command line.
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console

import vertebra as vt
from vertebra.decode import print_trace, trace_page

trace = vt.trace("tiny-llama2", "What is on the table?", max_new_tokens=4)
print_trace(trace, Console(width=120), details=1)

page = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "trace.html"
page.write_text(trace_page(trace), encoding="utf-8")
first = trace.steps[0]
print(f"\nstep 0 took {first.seconds * 1000:.1f} ms; it chose {first.text!r} with probability {first.probability:.1%}")
print(f"the whole of it, with masks and times: {page}")

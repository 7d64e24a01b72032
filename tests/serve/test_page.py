"""The clients of docs/serve.md, run as they stand there, each of less than ten lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.policies.models import image
from tests.serve.serving import policy
from vertebra import load
from vertebra.serve import Server, ServeSettings

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NEEDS = ("openpi_client", "json_numpy", "vla_eval", "openai", "zmq")


@pytest.fixture(scope="module")
def ports():
    with (
        Server(policy(), ServeSettings(port=0, groot=0)) as acting,
        Server(load("tiny-llama2"), ServeSettings(port=0)) as speaking,
    ):
        yield {"8000": str(acting.port), "8001": str(speaking.port), "5555": str(acting.groot_port)}


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split()[1])
def test_a_client(block, ports):
    for name in NEEDS:
        if re.search(rf"^(import|from) {name}", block, re.MULTILINE):
            pytest.importorskip(name)
    assert len([line for line in block.splitlines() if line.strip()]) < 10
    names = {"image": image(0)}
    exec(re.sub("8000|8001|5555", lambda found: ports[found[0]], block), names)
    if "actions" in names:
        assert len(names["actions"]) in (1, 3)

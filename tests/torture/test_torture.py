"""The load with faults in small; `make torture` gives it its ten minutes."""

from __future__ import annotations

from tests.serve.serving import policy
from tests.torture.load import expectations, hammer
from tests.torture.malformed import KINDS
from vertebra.serve import Server, ServeSettings
from vertebra.serve.pages import resident


def test_nothing_is_wrong_and_nothing_is_lost_under_load_with_faults():
    alone = policy(chunk=2, history=1)
    expected = expectations(lambda seen: alone.act(seen, "Pick up the cup", "bridge"), alone.reset)
    with Server(policy(chunk=2, history=1), ServeSettings(port=0, body_time=0.3)) as server:
        outcome = hammer(server.url, expected, seconds=2, clients=6, memory=lambda: float(resident()), share=0.3)
    assert (outcome.wrong, outcome.lost, dict(outcome.mistaken)) == (0, 0, {})
    assert outcome.right > 20
    assert set(outcome.malformed) <= set(KINDS)
    assert len(outcome.malformed) > 2

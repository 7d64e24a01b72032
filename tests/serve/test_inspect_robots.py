"""inspect-robots' adapters as installed: WidowX by OpenVLA's `/act` and openpi's websocket, Unitree G1 by GR00T's ZMQ."""

from __future__ import annotations

import numpy as np
import pytest

from tests.policies.models import counted, image, policy_model
from tests.serve.serving import TASK
from vertebra.policies import Policy
from vertebra.serve import Server, ServeSettings

pytest.importorskip("inspect_robots")
from inspect_robots.scene import Scene
from inspect_robots.types import Observation

SCENE = Scene(id="made", instruction=TASK)
LARGE = image(3, 224)
"""Of the size that the adapters send, so that their resizing changes nothing."""


def numbers(policy, seen, instruction=TASK) -> np.ndarray:
    policy.reset(SCENE)
    return np.stack([one.data for one in policy.act(seen).actions])


@pytest.fixture(scope="module")
def bridge():
    model = policy_model(chunk=3, dims=7, statistics={"bridge_orig": counted(7, 7, 1)})
    with Server(Policy(model), ServeSettings(port=0)) as server:
        yield server


def test_widowx_by_openvlas_act(bridge):
    adapter = pytest.importorskip("inspect_robots_widowx.policy")
    pytest.importorskip("requests")
    theirs = adapter.OpenVLAPolicy(server_url=bridge.url, jpeg_roundtrip=False, resize_px=224)
    found = numbers(theirs, Observation(images={"external_cam": LARGE}))
    assert np.allclose(found, bridge.service.policy.act(LARGE, TASK)[:1])


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_widowx_by_openpis_websocket(bridge):
    adapter = pytest.importorskip("inspect_robots_widowx.policy")
    pytest.importorskip("openpi_client")
    theirs = adapter.OpenpiPolicy(
        host="127.0.0.1", port=bridge.port, resize_px=224, action_horizon=3, replan_interval=3
    )
    found = numbers(theirs, Observation(images={"external_cam": LARGE}))
    assert np.allclose(found, bridge.service.policy.act(LARGE, TASK))
    theirs._infer().__closure__[1].cell_contents._ws.close()


def test_unitree_g1_by_groots_zmq():
    adapter = pytest.importorskip("inspect_robots_unitree_g1.policy")
    pytest.importorskip("msgpack_numpy")
    pytest.importorskip("zmq")
    model = policy_model(chunk=3, dims=16, proprio=True, statistics={"g1": counted(16, 4, 1)})
    names = {"state_keys": {"state.joints": ("packed", 0, 4)}, "action_keys": {"action.action": ("packed", 0, 16)}}
    with Server(Policy(model), ServeSettings(port=0, groot=0)) as server:
        theirs = adapter.Gr00tPolicy(port=server.groot_port, **names)
        joints = np.linspace(0, 1, 16)
        found = numbers(theirs, Observation(images={"head_cam": LARGE}, state={"joint_pos": joints}))
        seen = {"images": {"image": LARGE}, "proprio": joints[:4].astype(np.float32)}
        assert np.allclose(found, server.service.policy.act(seen, TASK), atol=1e-4)
        theirs._infer().__self__.close()

"""A model's folder that is written to while it is served: the server goes on with what it loaded, and shows that it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.policies.models import image, policy_model
from tests.serve.serving import TASK, asked
from vertebra import load
from vertebra import policy as load_policy
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.errors import CheckpointError
from vertebra.serve import Server, ServeSettings
from vertebra.serve.holding import Folder, own_weights

SEEN = {"images": {"image": image(0)}, "instruction": TASK, "unnorm_key": "bridge"}


def mapped(folder: Path) -> list[str]:
    """Files of weights that this process has as its memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if line.endswith(f"{folder}/model.safetensors")]


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma2"])  # the second one's head is its table
def test_weights_become_the_servers_own_and_shared_ones_stay_shared(name, tmp_path):
    folder = tmp_path / "model"
    load(str(tiny_checkpoint(name))).save(folder)
    model = load(folder)

    def shared() -> set[frozenset[str]]:
        places: dict[int, set[str]] = {}
        for key, value in model.state_dict().items():
            places.setdefault(value.data_ptr(), set()).add(key)
        return {frozenset(names) for names in places.values()}

    before = {key: value.clone() for key, value in model.state_dict().items()}
    lies = {key: value.data_ptr() % 64 for key, value in model.state_dict().items()}
    together, ids = shared(), [id(one) for one in model.parameters()]
    own_weights(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (shared(), [id(one) for one in model.parameters()]) == (together, ids)
    assert {key: value.data_ptr() % 64 for key, value in model.state_dict().items()} == lies, (
        "the last bits depend on it"
    )
    assert not mapped(folder)


@pytest.mark.parametrize("how", ["overwritten", "cut off", "replaced", "gone"])
def test_what_was_loaded_is_served_until_a_restart(how, tmp_path):
    place = tmp_path / "policy"
    policy_model(chunk=2).save(place)
    then = Folder(str(place))
    with Server(load_policy(place), ServeSettings(port=0), folder=then) as server:
        _, first, _ = asked(server.url + "/act", SEEN)
        assert "folder" not in asked(server.url + "/info")[1]
        weights = place / "model.safetensors"
        if how == "overwritten":
            with open(weights, "r+b") as file:
                file.seek(weights.stat().st_size // 2)
                file.write(np.random.default_rng(0).bytes(weights.stat().st_size // 4))
        elif how == "cut off":
            weights.write_bytes(b"")
        elif how == "replaced":
            policy_model(chunk=2).save(place, overwrite=True)
        else:
            place.rename(tmp_path / "elsewhere")
        status, again, _ = asked(server.url + "/act", {**SEEN, "images": {"image": image(1)}})
        assert (status, again == first) == (200, False)
        assert asked(server.url + "/act", SEEN)[1] == first
        for path in ("/info", "/ready"):
            status, answer, _ = asked(server.url + path)
            assert status == 200
            assert "changed since it was loaded" in answer["folder"]
        assert "changed since" in asked(server.url + "/info", headers={"Accept": "text/html"})[1]


def test_a_folder_that_changes_while_it_is_loaded_is_refused(tmp_path):
    policy_model().save(tmp_path / "policy")
    then = Folder(str(tmp_path / "policy"))
    made = load_policy(tmp_path / "policy")
    policy_model().save(tmp_path / "policy", overwrite=True)
    with pytest.raises(CheckpointError, match="changed while it was being loaded"):
        Server(made, ServeSettings(port=0), folder=then)

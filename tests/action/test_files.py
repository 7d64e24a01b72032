"""Files of statistics by four writers, read as one mapping; what is none of them is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vertebra.action.counting import Counter
from vertebra.action.files import read_statistics
from vertebra.action.statistics import DatasetStatistics
from vertebra.errors import CheckpointError, DataError

RNG = np.random.default_rng(2)


def moments(dims: int) -> dict:
    counter = Counter(dims)
    counter.add(RNG.normal(size=(50, dims)))
    made = counter.moments().to_json()
    return {name: value for name, value in made.items() if name != "count"}


OPENVLA = {
    "bridge_orig": {
        "action": moments(7) | {"mask": [True] * 6 + [False]}, "proprio": moments(7), "num_transitions": 9, "more": "kept",
    },
    "fractal": {"action": moments(7)},
}  # fmt: skip


def written(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def test_openvlas_stay_as_they_are(tmp_path):
    file = written(tmp_path / "dataset_statistics.json", OPENVLA)
    assert read_statistics(file) == OPENVLA
    assert read_statistics(tmp_path, key="fractal") == {"fractal": OPENVLA["fractal"]}
    config = written(tmp_path / "x" / "config.json", {"model_type": "openvla", "norm_stats": OPENVLA})
    assert read_statistics(config) == read_statistics(tmp_path / "x") == OPENVLA


def test_one_data_set_needs_a_name(tmp_path):
    file = written(tmp_path / "dataset_statistics_0af1.json", OPENVLA["fractal"])
    with pytest.raises(DataError, match="without its name"):
        read_statistics(file)
    assert read_statistics(file, key="mine") == {"mine": OPENVLA["fractal"]}


def test_lerobots_is_an_envelope(tmp_path):
    state, action, image = moments(6), moments(6), {"mean": [[[0.5]]]}
    tree = {"observation.state": state, "action": action | {"count": [50]}, "observation.images.top": image}
    written(tmp_path / "meta" / "stats.json", tree)
    made = DatasetStatistics.of(read_statistics(tmp_path, key="so101")["so101"], "so101")
    assert made.quantiles == "envelope"
    assert made.proprio is not None
    assert made.proprio.mean.tolist() == state["mean"]
    assert made.action.count == 50


def test_openpis(tmp_path):
    file = written(tmp_path / "norm_stats.json", {"norm_stats": {"state": moments(8), "actions": moments(7)}})
    made = DatasetStatistics.of(read_statistics(file, key="libero")["libero"], "libero")
    assert (made.action.dims, made.proprio.dims, made.quantiles) == (7, 8, "unknown")


def test_ours(tmp_path):
    written(tmp_path / "vertebra.json", {"record": {"policy": {"statistics": OPENVLA}}})
    assert read_statistics(tmp_path) == OPENVLA


def test_what_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds none of dataset_statistics\.json"):
        read_statistics(tmp_path)
    with pytest.raises(DataError, match="no data set `bridge`; it has bridge_orig, fractal"):
        read_statistics(written(tmp_path / "a.json", OPENVLA), key="bridge")
    with pytest.raises(DataError, match=r"its entries are \['lr'\]"):
        read_statistics(written(tmp_path / "b.json", {"lr": 1}))
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_statistics(tmp_path / "c.json")
    damaged = {"a": {"action": moments(7) | {"q01": [0.0]}}}
    with pytest.raises(DataError, match="`a`, `action` is damaged"):
        read_statistics(written(tmp_path / "d.json", damaged))
    with pytest.raises(DataError, match="has no statistics"):
        read_statistics(written(tmp_path / "e.json", {"record": {"policy": {}}}))

"""`vertebra tiny`: the checkpoint that was asked for, whole or not at all."""

from __future__ import annotations

import json

import pytest

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY, TINY_ENCODERS
from vertebra.cli.tiny import settings_of, tiny_name
from vertebra.errors import ConfigError


def test_it_loads(vertebra, tmp_path):
    folder = tmp_path / "mine"
    done = vertebra("tiny", "--family", "phi", str(folder), "--set", "num_hidden_layers=3", "--seed", "4")
    assert done.code == 0
    assert done.out.startswith("tiny-phi2: ")
    assert len(load_backbone(folder).layers) == 3


@pytest.mark.parametrize(
    ("given", "name"),
    [("llama2", "tiny-llama2"), ("tiny-opt-narrow", "tiny-opt-narrow"), ("opt", "tiny-opt"), ("phi2", "tiny-phi2"),
     ("phi", "tiny-phi2"), ("bert", "tiny-bert"), ("opt-narrow", "tiny-opt-narrow")],
)  # fmt: skip
def test_names(given, name):
    assert tiny_name(given) == name


def test_the_list(vertebra):
    out = vertebra("tiny", "--list").out
    assert all(name in out for name in (*TINY, *TINY_ENCODERS))


def test_a_full_folder_is_refused_or_replaced(vertebra, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for options, why in (((), "not empty"), (("--overwrite",), "is not replaced")):
        done = vertebra("tiny", "--family", "gpt2", str(tmp_path), *options)
        assert done.code == 1
        assert why in done.err
        assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "config.json").write_text("{}")
    assert vertebra("tiny", "--family", "gpt2", str(tmp_path), "--overwrite").code == 0
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"


def test_bad_input(vertebra, tmp_path):
    done = vertebra("tiny", "--family", "lama2", str(tmp_path / "x"))
    assert done.code == 1
    assert "`llama2`" in done.err
    done = vertebra("tiny", "--family", "llama2", str(tmp_path / "x"), "--set", "num_hiden_layers=3")
    assert done.code == 1
    assert "`num_hidden_layers`" in done.err
    assert vertebra("tiny", "--family", "llama2").code == 2
    assert vertebra("tiny", str(tmp_path / "x")).code == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2", "tiny-gemma3", "tiny-opt-narrow"])
def test_no_size_of_nothing_is_written(vertebra, tmp_path, name):
    """A checkpoint that is written is one that loads: of no size may there be none, or less."""
    sizes = {size: value for size, value in TINY[name].config.items() if type(value) is int}
    assert sizes
    for size in (*sizes, "num_hidden_layers", "hidden_size"):
        for value in (0, -1):
            done = vertebra("tiny", "--family", name, str(tmp_path / "x"), "--set", f"{size}={value}")
            assert (done.code, f"{size} is {value}" in done.err) == (1, True), (size, value, done.err)
    assert not (tmp_path / "x").exists()


def test_settings():
    assert settings_of(["a=3", "b=true", "c=1e-5", "d=[1, 2]", "e=x=y"]) == {
        "a": 3,
        "b": True,
        "c": 1e-5,
        "d": [1, 2],
        "e": "x=y",
    }
    for wrong in ("a", "=3", "a b=3"):
        with pytest.raises(ConfigError, match="name=value"):
            settings_of([wrong])
    with pytest.raises(ConfigError, match="cannot be read"):
        settings_of(["d=[1,"])

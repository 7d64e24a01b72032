"""`vertebra models`: every id, its builder and habits, in a table and as JSON."""

from __future__ import annotations

import json

import pytest

from vertebra.backbone.families.models import FAMILIES, MODELS
from vertebra.backbone.registry import load_backbone, model_ids
from vertebra.backbone.tiny import TINY


def test_every_id_is_listed(vertebra):
    done = vertebra("models")
    assert done.code == 0
    words = {line.split()[0] for line in done.out.splitlines()}
    assert set(model_ids()) <= words


def test_a_narrow_terminal_cuts_no_name(vertebra, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = vertebra("models", "--family", "mistral").out
    assert "mistral-nemo-12b-instruct" in out
    assert "mistralai/Mistral-Nemo-Instruct-2407" in out


def test_json(vertebra):
    rows = {row["id"]: row for row in json.loads(vertebra("models", "--json").out)}
    assert list(rows) == model_ids()
    assert rows["llama2-7b-pure"] == {
        "id": "llama2-7b-pure",
        "family": "llama2",
        "hub": "meta-llama/Llama-2-7b-hf",
        "tiny": False,
        "builder": "pure",
        "anchor": "bos",
        "bos": "by the tokenizer",
        "pad": "<PAD> added",
    }
    assert rows["phi-2-3b"]["bos"] == "by the prompt"
    assert all(row["builder"] for row in rows.values())


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-qwen2.5", "tiny-phi2", "tiny-gpt2"])
def test_what_the_table_says_is_what_loads(vertebra, name):
    (row,) = [row for row in json.loads(vertebra("models", "--json").out) if row["id"] == name]
    backbone = load_backbone(name, inference_mode=True)
    assert row["builder"] == backbone.builder
    assert row["anchor"] == backbone.anchor
    assert (row["bos"] == "by the tokenizer") == backbone.habits.adds_bos
    assert row["pad"] == "own" or row["pad"] == f"{backbone.tokenizer.pad_token} added"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_family(vertebra, family):
    rows = json.loads(vertebra("models", "--family", family, "--json").out)
    expected = [row.id for row in MODELS.values() if row.family == family]
    assert [row["id"] for row in rows] == expected + [spec.name for spec in TINY.values() if spec.family == family]


def test_a_family_that_is_none(vertebra):
    done = vertebra("models", "--family", "qwen")
    assert done.code == 1
    assert "unknown family `qwen`. Did you mean `qwen" in done.err

"""The set-up chooses what fits; the report finds each fault that is put into the data; the stats add up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vertebra.backbone.registry import load_backbone
from vertebra.data.encode.chat import ChatEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder
from vertebra.data.look.report import check_data, check_packing, histogram
from vertebra.data.look.setup import Setup
from vertebra.data.look.stats import padding_of, write_picture
from vertebra.data.model_facts import ModelFacts
from vertebra.errors import ConfigError, DataError, UnknownNameError
from vertebra.tasks.chain import data_config
from vertebra.tasks.inspection import set_up as set_up_job
from vertebra.tasks.task import Job

from .files import CHAT, ENCODER, FILES, TEXT, TURNS
from .tables import table_of


@pytest.fixture(scope="module")
def models() -> dict[str, ModelFacts]:
    found = {name: ModelFacts.find(name) for name in (CHAT, TEXT, ENCODER)}
    return found | {CHAT: replace(found[CHAT], sizes={"image": 4})}


def set_up(data: Any, model: ModelFacts, **settings: Any) -> Setup:
    return set_up_job(Job(data=data_config(data, model, **{"cache": False} | settings), model=model))


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_set_up(name, tmp_path, models):
    write, model, format, kind = FILES[name]
    made = set_up(str(write(tmp_path)), models[model])
    assert (made.format, made.kind) == (format, kind)
    batch = next(
        iter(Loader(made.samples, InOrder(2), Collator(made.model.pad_id), pin_memory=False, shift=model != ENCODER))
    )
    assert batch.rows >= 1
    report = check_data(made)
    assert report.passed, [finding for finding in report.findings if finding.status != "pass"]
    assert json.loads(json.dumps(report.to_json()))["passed"]


def found(rows, model, jsonl, **options):
    return check_data(set_up(str(jsonl(rows)), model, on_bad="skip", **options))


def test_each_fault_is_found(jsonl, models):
    chat = models[CHAT]
    rows = [
        {"messages": TURNS},
        {"messages": TURNS},
        {"messages": [TURNS[0], {"role": "assistant", "content": " "}]},
        {"messages": [TURNS[0]]},
        {"messages": [{"role": "user", "content": "word " * 600}, TURNS[1]]},
        {"messages": [TURNS[1], TURNS[0]]},
    ]
    report = found(rows, chat, jsonl)
    status = {finding.name: finding.status for finding in report.findings}
    assert status["rows"] == "fail"
    assert report.finding("rows").value == "2 of 6"
    assert "no assistant turn" in report.finding("rows").places[0]
    assert "cannot be rendered" in report.finding("rows").places[1]
    assert status["duplicates"] == status["empty answers"] == "note"
    assert report.finding("duplicates").places[0].endswith("data.jsonl:1 again")
    assert report.finding("empty answers").places[0].endswith("data.jsonl:3")
    assert status["too long"] == "fail"
    assert ":5 has" in report.finding("too long").places[0]
    assert not report.passed
    assert report.finding("BOS").value == "1 in 4"
    assert report.finding("BOS").message.startswith("`<s>`")


def test_unknown_tokens_and_label_names(jsonl, models):
    report = found([{"text": "数据 ☃ ☃"}] * 2, models[ENCODER], jsonl)
    assert report.finding("unknown tokens").status == "note"
    pairs = [{"sentence1": "a", "sentence2": f"b{i}", "label": label} for i, label in enumerate(["x", "y", "x"])]
    report = found(pairs, models[ENCODER], jsonl)
    assert report.finding("labels").message == "x 2, y 1; inferred"
    assert report.finding("labels").value == "0 to 1"
    assert (report.finding("BOS").value, report.finding("EOS").value) == ("1 in 3", "2 in 3")  # [CLS] and [SEP]
    assert (report.finding("too long").status, report.finding("too long").value) == ("pass", "0")
    long = found([{**row, "sentence1": "a " * 600} for row in pairs], models[ENCODER], jsonl).finding("too long")
    assert (long.status, long.value) == ("note", "3")
    assert (
        found([{**row, "label": i * 2} for i, row in enumerate(pairs)], models[ENCODER], jsonl)
        .finding("labels")
        .message.endswith("nobody is 1, 3; inferred")
    )


def test_labels_that_are_slips_are_named(jsonl, models):
    """A check that passes is one after which training would start; what it names is where a reader finds it."""
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "label": str(i % 2)} for i in range(40)]
    assert found(rows, models[ENCODER], jsonl).passed
    slips = ["2", "yes", "", "-1", None]
    bad = [{"sentence1": f"c {i}", "sentence2": "d", "label": label} for i, label in enumerate(slips)]
    report = found([*rows, *bad, {"sentence1": " ", "sentence2": "e", "label": "1"}], models[ENCODER], jsonl)
    assert report.finding("rows").value == "4 of 46"
    listed = " ".join(report.finding("rows").places)
    for reason in ("unknown label: `yes`", "no label", "label out of range: -1"):
        assert reason in listed
    labels = report.finding("labels")
    assert (labels.status, labels.message) == ("fail", "0 20, 1 21, 2 1; inferred")
    assert ":41)" in labels.places[0]
    assert "--label 0 --label 1 --label 2" in labels.places[0]
    blank = report.finding("empty sentences")
    assert (blank.status, blank.places[0].rpartition(":")[2]) == ("note", "46")
    declared = found([*rows, *bad[:1]], models[ENCODER], jsonl, labels=["0", "1", "2"])
    assert (declared.passed, declared.finding("labels").message) == (True, "0 20, 1 20, 2 1")
    lone = found([{**row, "label": "0"} for row in rows], models[ENCODER], jsonl).finding("labels")
    assert lone.status == "fail"
    with pytest.raises(ConfigError, match="labels: of kinds `chat`, `pairs` alone"):
        found([{"text": "a"}], models[ENCODER], jsonl, labels=["x"])


def test_broken_images(jsonl, models, tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-900])
    turns = [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "Noise."}]
    rows = [{"image": f"{name}.png", "conversations": turns} for name in ("whole", "cut")]
    finding = found(rows, models[CHAT], jsonl, images=str(tmp_path)).finding("images")
    assert (finding.status, finding.value) == ("fail", "1 of 2")
    assert "cut.png" in finding.places[0]


@pytest.mark.parametrize("indent", [None, 1])
def test_faults_in_an_array_are_of_their_items(indent, models, tmp_path):
    """Forty rows on one line: one is unusable, another's image is cut off, and each is named for itself."""
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-900])
    rows = [
        {
            "image": "cut.png" if number == 30 else "whole.png",
            "conversations": [{"from": "human", "value": f"<image> {number}?"}, {"from": "gpt", "value": "Noise."}],
        }
        for number in range(40)
    ]
    rows[7]["conversations"] = rows[7]["conversations"][:1]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=indent))
    report = check_data(set_up(str(path), models[CHAT], on_bad="skip"))
    assert report.finding("rows").value == "1 of 40"
    assert ", item 8: no assistant turn" in report.finding("rows").places[0]
    assert report.finding("images").value == "1 of 39"
    assert ", item 31: " in report.finding("images").places[0]
    encoder = ChatEncoder.of(models[CHAT].backbone, sizes={"image": 4})
    held = prepare(path, encoder, cache=False, on_bad="skip")
    cached = prepare(path, encoder, cache=tmp_path / "c", on_bad="skip")
    assert [cached.where(i) for i in range(39)] == [held.where(i) for i in range(39)]
    assert held.where(7).endswith(", item 9")
    assert cached.faults == held.faults


def test_a_doubled_bos_is_found(models):
    """Text that carries the template's own BOS, tokenized by a tokenizer that adds one."""
    made = set_up(["a"], models[CHAT], rows=True)
    doubled = replace(made, table=table_of([[1, 1, 5, 2], [1, 5, 2]]))
    assert check_data(doubled).finding("BOS").status == "fail"
    beyond = replace(made, table=table_of([[1, 5000, 2]]))
    assert check_data(beyond).finding("ids").status == "fail"


def test_packing_is_held_against_the_model(models, monkeypatch):
    made = set_up([{"messages": TURNS}, {"messages": [*TURNS, *TURNS]}], models[CHAT])
    backbone = load_backbone(CHAT)
    assert check_packing(made, backbone).status == "pass"
    # A batch that does not tell its documents apart is what packing done wrong looks like.
    real = Collator.__call__

    def without_documents(self, rows, extras=None):
        batch = real(self, rows, extras)
        batch["document"].zero_()
        return batch

    monkeypatch.setattr(Collator, "__call__", without_documents)
    assert check_packing(made, backbone).status == "fail"


def test_combinations_that_cannot_work(models, jsonl, monkeypatch):
    monkeypatch.setattr("vertebra.data.reading.CORPUS_SIZE", 0.1)
    path = str(jsonl([{"text": "a"}]))
    with pytest.raises(ConfigError, match="a language model, which cannot do `masked`; it can do text, chat"):
        set_up(path, models[TEXT], kind="masked")
    with pytest.raises(ConfigError, match=r"an encoder, and none of its kinds \(masked, pairs\) reads `messages`"):
        set_up([{"messages": TURNS}], models[ENCODER])
    with pytest.raises(UnknownNameError, match="Did you mean `chat`"):
        set_up(path, models[TEXT], kind="chatt")
    with pytest.raises(DataError, match="takes conversation, this row is a text"):
        set_up(path, models[CHAT], kind="chat")
    assert set_up("stdlib:docstrings", models[TEXT], block=64).limit == 64


def test_a_backbone_makes_its_own_encoder():
    backbone = load_backbone("tiny-smollm3", inference_mode=True)
    table = prepare([{"messages": TURNS}], ChatEncoder.of(backbone), cache=False)
    assert "Go left." in backbone.tokenizer.decode(table.sequence(0).ids)


def test_the_histogram_counts_every_sample():
    lengths = np.array([1, 7, 8, 30, 400, 401])
    made = histogram(lengths)
    assert sum(count for _, _, count in made) == len(lengths)
    for low, high, count in made:
        assert count == int(((lengths >= low) & (lengths <= high)).sum())


def test_stats_and_their_picture(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    samples = table_of([np.zeros(length, int) for length in lengths], chunk=100)
    padding = padding_of(samples, batch_size=4)
    assert padding.capacity == lengths.max()
    assert padding.slots["packed"] < padding.slots["grouped"] < padding.slots["random"]
    assert padding.waste("random") == pytest.approx(1 - 1 / padding.slots["random"])
    written = write_picture(tmp_path / "a.png", samples.lengths, padding, title="数据", limit=64)
    with Image.open(written) as picture:
        assert picture.size == (1200, 432)
    with pytest.raises(DataError, match="cannot be written"):
        write_picture(tmp_path / "none" / "a.png", samples.lengths, padding, title="", limit=64)

"""What a model folder says of itself, and `vertebra info` on it."""

from __future__ import annotations

import json
import sys

import pytest

from tests.model.models import shared
from vertebra.cli import main
from vertebra.model.description import counted, describe, holds_parts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "fused"
    shared("tiny-llama2", towers=True).save(folder)
    return folder


class TestDescribe:
    def test_counts_what_the_model_has(self, saved):
        model, facts = shared("tiny-llama2", towers=True), describe(saved)
        assert facts.parameters == sum(p.numel() for p in model.parameters())
        assert facts.backbone_parameters == sum(p.numel() for p in model.backbone.parameters())
        assert facts.embedding == tuple(model.backbone.llm.get_input_embeddings().weight.shape)
        assert (facts.backbone, facts.family, facts.builder) == ("tiny-llama2", "llama2", model.backbone.builder)
        by_name = {part.name: part for part in facts.parts}
        assert list(by_name) == list(model.parts)
        camera = by_name["image"]
        assert (camera.slots, camera.encoder_width, camera.width) == (4, 80, 64)
        assert (camera.kind, camera.projector, camera.place) == ("fused vision", "gelu3", "anchored")
        for name, part in by_name.items():
            expected = sum(p.numel() for p in model.parts[name].parameters())
            assert part.encoder_parameters + part.projector_parameters == expected

    def test_drawn(self, saved):
        drawn = describe(saved).draw()
        for why in (
            "dinov2_with_registers, block 2 of 3, from 28 × 28 pixels + siglip_vision_model",
            "4 × 80 ──gelu3──► 4 × 64     4 slots an item, right after BOS",
            "1 × 48 ──linear──► 1 × 64     1 slot an item, in its slots",
            "added to its tokens",
            "learned queries",
            "tiny-llama2 (llama2)",
            "F32",
        ):
            assert why in drawn, drawn


def info(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vertebra", "info", *arguments])
    monkeypatch.setattr(main.log, "show", lambda: None)
    with pytest.raises(SystemExit) as left:
        main.run()
    assert not left.value.code
    return capsys.readouterr().out


def test_vertebra_info_draws_it(saved, capsys, monkeypatch):
    drawn = info(capsys, monkeypatch, str(saved))
    assert describe(saved).draw() in drawn
    assert "tiny-llama2" in drawn
    printed = json.loads(info(capsys, monkeypatch, str(saved), "--json"))
    assert [part["name"] for part in printed["multimodal"]["parts"]] == list(shared("tiny-llama2", towers=True).parts)


def test_a_backbone_holds_no_parts(saved, capsys, monkeypatch):
    assert holds_parts(saved)
    assert not holds_parts("tiny-llama2")
    assert "multimodal" not in json.loads(info(capsys, monkeypatch, "tiny-llama2", "--json"))


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999"), (1234, "1.2 k"), (4_700_000, "4.7 M"), (7_000_000_000, "7.0 B")]
)
def test_counted(number, text):
    assert counted(number) == text

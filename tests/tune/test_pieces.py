"""The table of what trains counts every parameter once."""

from __future__ import annotations

from tests.tune.models import backbone, with_parts
from vertebra.tune.pieces import as_text, total, what_trains
from vertebra.tune.stages import TuneConfig, choose


def test_the_table_counts_what_the_model_has():
    model = with_parts()
    choose(model, TuneConfig(stage="vla-sandwich-train"))
    rows = what_trains(model)
    all_of_it = total(rows)
    assert all_of_it.parameters == sum(p.numel() for p in model.parameters())
    assert all_of_it.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all_of_it.tensors == len(list(model.parameters()))
    by_piece = {row.piece: row for row in rows}
    layers = by_piece["backbone.llm.model.layers.0-1"]
    assert layers.trained_tensors * 2 == layers.tensors
    assert by_piece["parts.image.projector.fc1"].share == 1.0


def test_adapters_and_rows_have_rows_of_their_own():
    model = backbone("tiny-gpt2")
    choose(model, TuneConfig(stage="lora"))
    rows = {row.piece: row for row in what_trains(model)}
    assert rows["llm.transformer.h.0-1 (adapter)"].share == 1.0
    assert rows["llm.transformer.h.0-1"].trained == 0
    text = as_text(list(rows.values()))
    assert "share" in text
    assert len({len(line) for line in text.splitlines()}) == 1

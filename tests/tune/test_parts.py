"""The parts of a model: what is pretrained, what is made from scratch, what has not been trained yet."""

from __future__ import annotations

import pytest
import torch

from tests.tune.models import backbone, with_all_kinds
from vertebra.errors import ConfigError
from vertebra.tune.parts import parts_of


def test_parts_of_a_plain_module():
    model = backbone()
    assert parts_of(model.llm).lm is model.llm
    assert parts_of(model).lm is model.llm
    assert parts_of(model.llm).layers is model.layers


def test_parts_of_a_model_that_sees():
    model = with_all_kinds()
    parts = parts_of(model)
    assert list(parts.vision) == ["parts.image.encoder"]
    assert list(parts.scratch) == ["parts.box.encoder"]
    assert list(parts.projector) == ["parts.image.projector", "parts.box.projector"] == parts.untrained
    assert list(parts.heads) == ["parts.action"]
    assert parts.module("parts.box.encoder") is model.parts["box"].encoder
    assert parts.module("parts.action.encoder") is None


def test_a_module_of_nobodys_has_layers_where_most_parameters_are():
    model = torch.nn.Module()
    model.small, model.large = (torch.nn.ModuleList(torch.nn.Linear(n, n) for _ in range(3)) for n in (2, 9))
    assert parts_of(model).layers is model.large
    with pytest.raises(ConfigError, match="has no list of layers"):
        _ = parts_of(torch.nn.Linear(2, 2)).layers

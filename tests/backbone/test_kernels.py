"""Devices by name: one that this machine lacks is a message, not torch's assertion."""

from __future__ import annotations

import pytest
import torch

from vertebra.backbone.kernels import as_device
from vertebra.backbone.registry import load_backbone
from vertebra.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize("given", ["cpu", torch.device("cpu"), None, "meta"])
def test_devices_that_are_here(given):
    assert as_device(given) == (None if given is None else torch.device(given))


def test_every_card_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 12)
    for name in ("cuda", "cuda:0", "cuda:1", "cuda:11"):
        assert as_device(name) == torch.device(name)
    with pytest.raises(ConfigError, match="no device `cuda:12`"):
        as_device("cuda:12")


@pytest.mark.parametrize("given", ["gpu", "cpuu", "cuda:x", 3.5])
def test_names_that_are_none(given):
    with pytest.raises(UnknownNameError, match="Known: cpu"):
        as_device(given)


def test_a_device_that_is_not_here_is_an_error_before_anything_loads(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="it has cpu"):
        load_backbone("tiny-llama2", device="cuda")


@pytest.mark.parametrize("wrong", [torch.int64, torch.float8_e4m3fn, "auto", 32])
def test_types_that_no_model_runs_in(wrong):
    with pytest.raises(UnknownNameError, match="unknown dtype"):
        load_backbone("tiny-llama2", dtype=wrong)

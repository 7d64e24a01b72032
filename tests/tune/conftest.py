"""A trained adapter that several files of tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tune.models import backbone, train_a_little
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.tune.adapter import save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import probe_logits
from vertebra.tune.stages import TuneConfig, choose


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter with a new token, on tiny-llama2; beside it the logits that it gave."""
    model = backbone()
    grow_vocabulary(model, ["<ACT>"])
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=4)))
    train_a_little(model)
    folder = save_adapter(model, adapter, tmp_path_factory.mktemp("run") / "a", extra={"statistics": {"x": 1}})
    torch.save(probe_logits(model), folder.parent / "logits.pt")
    return folder

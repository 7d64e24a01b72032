"""No `overwrite` replaces a folder that holds something else than what is written: every writer, one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.openvla.made import made_folder
from tests.tune.models import backbone, with_parts
from vertebra.backbone.tiny import write_tiny
from vertebra.errors import CheckpointError
from vertebra.interop.load import load
from vertebra.interop.openvla.write import write_openvla
from vertebra.model.encoders.vision.tiny import write_tiny_vision
from vertebra.tune.adapter import save_adapter
from vertebra.tune.lora import LoraConfig
from vertebra.tune.merge import merge
from vertebra.tune.stages import TuneConfig, choose

Write = Callable[[Path], object]


def adapter_into(folder: Path) -> object:
    model = backbone()
    return save_adapter(model, choose(model, TuneConfig(stage="lora", lora=LoraConfig(r=2))), folder, overwrite=True)


def merged(folder: Path) -> object:
    adapter = folder.parent / "adapter"
    adapter_into(adapter)
    return merge("tiny-llama2", adapter, folder, overwrite=True, dtype="float32")


def openvla(folder: Path) -> object:
    return write_openvla(load(made_folder(folder.parent / "openvla"), dtype="float32"), folder, overwrite=True)


WRITERS: dict[str, Write] = {
    "backbone": lambda folder: backbone().save(folder, overwrite=True),
    "model": lambda folder: with_parts().save(folder, overwrite=True),
    "model, by training code's name": lambda folder: with_parts().save_pretrained(folder),
    "tiny": lambda folder: write_tiny("tiny-gpt2", folder, overwrite=True),
    "tiny vision": lambda folder: write_tiny_vision("tiny-siglip", folder, overwrite=True),
    "adapter": adapter_into,
    "merge": merged,
    "openvla": openvla,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_is_no_model_is_kept_and_a_model_is_replaced(write: Write, tmp_path: Path):
    theirs = tmp_path / "a" / "thesis"
    theirs.mkdir(parents=True)
    (theirs / "chapter.tex").write_text("three years")
    with pytest.raises(CheckpointError, match=r"holds something else \(chapter.tex\), and is not replaced"):
        write(theirs)
    assert [(path.name, path.read_text()) for path in theirs.iterdir()] == [("chapter.tex", "three years")]
    own = tmp_path / "b" / "own"
    own.parent.mkdir()
    write(own)
    names = {path.name for path in own.iterdir()}
    (own / "left over.txt").write_text("")
    for part in ("adapter", "openvla"):  # what the second writing makes anew
        if (own.parent / part).exists():
            (own.parent / part).rename(own.parent / f"{part}-before")
    write(own)
    assert {path.name for path in own.iterdir()} == names

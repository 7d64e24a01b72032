"""Mutated model folders of every kind, each put through all that the library does with a folder.

    python -m tests.fuzz.models --cases 1000 --seconds 60      prints one line a case that is not as it should be
    python -m tests.fuzz.models --only 123                     one case again, with its traceback

A case is its number: the same number is the same damage. A folder must load, or be refused by an error of ours.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.damage import damage
from tests.fuzz.judge import Subject, main

PLAIN = ("tiny-llama2", "tiny-gpt2", "tiny-gemma3", "tiny-qwen3", "tiny-opt-narrow", "tiny-phi3", "tiny-smollm2")
SAID = (("user", "Where is the red block?"), ("assistant", "On the left."), ("user", "And now?"))
TALK = [{"role": role, "content": content} for role, content in SAID]


def make(folder: Path) -> None:
    """The sound folders, and beside them the one that no folder may read."""
    import torch
    from safetensors.torch import load_file, save_file

    from tests.interop.openvla.made import made_adapter, made_folder, made_oft
    from tests.tune.models import with_parts
    from vertebra.backbone.registry import load_backbone
    from vertebra.backbone.tiny import write_tiny
    from vertebra.backbone.vocabulary import grow_vocabulary
    from vertebra.tune.adapter import save_adapter
    from vertebra.tune.lora import LoraConfig, add_lora

    for name in PLAIN:
        write_tiny(name, folder / name)
    outside = write_tiny("tiny-llama2", folder / "outside")
    tensors = load_file(outside / "model.safetensors")
    (outside / "names.json").write_text(json.dumps(list(tensors)))

    sharded = write_tiny("tiny-llama2", folder / "sharded")
    (sharded / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, sharded / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))

    pickled = write_tiny("tiny-llama2", folder / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(tensors, pickled / "pytorch_model.bin")

    pieces = write_tiny("tiny-gpt2", folder / "pieces")  # the older files of a byte-level tokenizer
    model = json.loads((pieces / "tokenizer.json").read_text())["model"]
    (pieces / "tokenizer.json").unlink()
    (pieces / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
    (pieces / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")

    bare = write_tiny("tiny-gemma3", folder / "broken-gemma")  # what is left when a tokenizer's file was not copied
    (bare / "tokenizer.json").unlink()

    for name in ("tiny-llama2", "tiny-phi2"):
        backbone = load_backbone(name)
        grow_vocabulary(backbone, ["<ACT>", "<STOP>"])
        backbone.save(folder / f"grown-{name}")
    with_parts().save(folder / "parts")
    model = load_backbone("tiny-llama2")
    adapter = add_lora(model, LoraConfig(r=2))
    save_adapter(model, adapter, folder / "adapter")
    made_folder(folder / "openvla", shards=2)
    made_adapter(made_oft(folder / "oft", shards=1) / "lora_adapter", folder / "openvla")


def use(folder: Path, kind: str, draw: random.Random) -> None:
    from vertebra.action.record import ActionRecord
    from vertebra.backbone.registry import load_backbone
    from vertebra.interop import load_openvla
    from vertebra.interop.openvla.describe import describe_openvla
    from vertebra.model.description import describe, holds_parts
    from vertebra.model.model import Model
    from vertebra.prompt.chat_template import TemplatePromptBuilder
    from vertebra.prompt.rendering import render
    from vertebra.tune.adapter import load_adapter

    modes: list[dict[str, Any]] = [{}, {"inference_mode": True, "weights": True}]
    draw.shuffle(modes)
    if kind == "adapter":
        load_adapter("tiny-llama2", folder)
        return
    if kind in ("openvla", "oft"):
        base = folder.parent / "sound" / "openvla"
        model = load_openvla(folder, base=base if kind == "oft" and draw.random() < 0.3 else None, **modes[0])
        if draw.random() < 0.2:
            describe_openvla(folder).draw()
        if "policy" in model.record:
            ActionRecord.of(model.record)
        return
    if kind == "parts" and draw.random() < 0.6:
        holds_parts(folder)
        describe(folder).draw()
        Model.load(folder, **modes[0])
        return
    backbone = load_backbone(folder, **modes[0])
    render(TALK, backbone.prompt_builder_fn, backbone.tokenizer)
    if backbone.tokenizer.chat_template:
        render(TALK, TemplatePromptBuilder, backbone.tokenizer)


if __name__ == "__main__":
    main(Subject(make=make, damage=damage, use=use))

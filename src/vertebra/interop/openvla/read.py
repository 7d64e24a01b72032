"""A folder of OpenVLA's as a `Model`: towers, projector, language model, and what its actions mean.

    config.json ──► facts ──► backbone (structure) ─┐
    shards, mapped ──► names ──► tensors ───────────┼──► Model, with `record["policy"]` and what is kept aside
    preprocessor_config.json ──► Preparation ───────┘

Nothing of a shard is read before it is used, where it is wanted in the type that it is stored in. Code in the folder is
never run. What no file says is guessed, and every guess is in `record["openvla"]["guesses"]` and in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vertebra import log
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.weights import assign, mapped_tensors, parameters_on_meta
from vertebra.errors import CheckpointError, ConfigError
from vertebra.interop.openvla import names, policy
from vertebra.interop.openvla import towers as timm
from vertebra.interop.openvla.folder import Facts, read_facts, require_one_size, small_files
from vertebra.interop.openvla.images import image_facts
from vertebra.interop.openvla.options import Guesses, ImportOptions
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.vision import FusedTowers, VisionTower
from vertebra.model.model import Model
from vertebra.model.projectors import Projector

RECORD = "openvla"
"""The place in a model's record of what a folder was."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A folder as it was found: its facts, and its tensors under the names of Hugging Face's form."""

    facts: Facts
    tensors: Mapping[str, torch.Tensor]
    files: Mapping[str, bytes]
    first: tuple[str, ...] = ()
    """Steps of TensorFlow's before an image is prepared."""
    llm: str | Path = ""
    """Where config and tokenizer of the language model are."""


def load_openvla(where: str | Path, options: ImportOptions | None = None, **backbone: Any) -> Model:
    """The model in a folder; `backbone`: options of `load_backbone`."""
    folder, options, guesses = Path(where).expanduser(), options or ImportOptions(), Guesses()
    facts = read_facts(folder)
    found = Found(facts=facts, tensors=mapped_tensors(folder), files=small_files(folder), llm=folder)
    return build(found, options, guesses, **backbone)


def build(found: Found, options: ImportOptions, guesses: Guesses, **asked: Any) -> Model:
    """The model of what was found."""
    facts = found.facts
    if asked.get("quantization") is not None:
        raise ConfigError(
            "quantization packs weights while a plain checkpoint loads; write the model with import first"
        )
    asked.pop("weights", None)
    runs = bool(asked.pop("inference_mode", True))
    kinds, image = image_part(found, options, int(facts.text.get("hidden_size", 0)))
    sorted_ = names.sort(found.tensors, kinds, image, where=facts.where)
    image.load_state_dict(sorted_.image, assign=True)
    model = load_backbone(found.llm, inference_mode=True, **asked)
    _fill(model, sorted_.language, facts)
    image.to(model.dtype).to(model.device)
    record = policy.record_of(facts, model, options, guesses)
    made = Model(
        model,
        {names.IMAGE: image},
        record={**record, RECORD: {"kinds": list(kinds), "timm": list(facts.timm_ids), "guesses": guesses.made}},
    )
    for sentence in guesses.made:
        log.info(f"{facts.where}: {sentence}")
    return made.eval() if runs else to_train(made)


def image_part(found: Found, options: ImportOptions, width: int) -> tuple[tuple[str, ...], Part]:
    """The kinds of the towers, and the part without weights: towers and projector as the tensors are shaped."""
    facts, towers, kinds = found.facts, [], []
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    preparation, statistics = image_facts(facts, first=found.first)
    heads = options.heads or (None,) * len(facts.timm_ids)
    if len(heads) != len(facts.timm_ids):
        raise ConfigError(f"heads={heads}; expected {len(facts.timm_ids)}, one number a tower of `{facts.where}`")
    with parameters_on_meta():
        for number, (timm_id, (mean, std)) in enumerate(zip(facts.timm_ids, statistics, strict=True)):
            row, own = timm.tower_named(timm_id, heads[number]), names.tower_shapes(shapes, number)
            where = f"tower {number} of `{facts.where}`"
            if not own:
                raise CheckpointError(f"{where} has no tensors; expected some named `{names.FEATURIZERS[number]}…`")
            timm.check_kind(row, timm_id, own, where)
            config = timm.config_of(row, own, require_one_size(facts), where)
            towers.append(
                VisionTower(
                    {**config, **_activation(facts, number)},
                    block=-2,
                    mean=mean,
                    std=std,
                    preparation=preparation,
                    name=timm_id,
                )  # fmt: skip
            )
            kinds.append(row.kind)
        encoder = FusedTowers(towers, preparation=preparation) if len(towers) > 1 else towers[0]
        kind = "gelu3" if f"{names.PROJECTOR}fc3.weight" in shapes else "gelu2"
        return tuple(kinds), Part(encoder, Projector(kind, encoder.width, width), place="anchored")


def _activation(facts: Facts, number: int) -> dict[str, str]:
    """What the config puts in place of a tower's activation."""
    given = (facts.config.get("timm_override_act_layers") or [None] * 2)[number]
    return {} if given is None else {"hidden_act": given}


def _fill(backbone: Any, tensors: dict[str, torch.Tensor], facts: Facts) -> None:
    """Map the language model's tensors into its structure."""
    rows = backbone.num_rows
    embedding = next((t for name, t in tensors.items() if name.endswith("embed_tokens.weight")), None)
    if embedding is not None and len(embedding) != rows:
        raise CheckpointError(
            f"`{facts.where}` has {len(embedding)} embedding rows, and {rows} by its config and tokenizer"
            f"{' (a pad token was added)' if backbone.growths else ''}; copy its tokenizer files again"
        )
    stray = sorted(set(tensors) - set(backbone.llm.state_dict()))
    if stray:
        raise CheckpointError(f"{len(stray)} tensors in `{facts.where}` belong to nothing: {stray[:4]}")
    assign(backbone.llm, tensors, dtype=backbone.llm.dtype, where=facts.where)
    backbone._awaiting_weights = False
    backbone._weights_came()


def to_train(model: Model) -> Model:
    """A model that was read to run, as one to train: with weights of its own, which no file changes under."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    backbone: Any = model.backbone
    backbone.inference_mode = False
    backbone.tokenizer.padding_side = "right"
    backbone.llm.enable_input_require_grads()
    return model.train()

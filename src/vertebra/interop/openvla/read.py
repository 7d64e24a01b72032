"""A folder of OpenVLA's as a `Model`: towers, projector, language model, and what its actions mean.

    config.json ──► facts ──► backbone (structure) ─┐
    shards, mapped ──► names ──► tensors ───────────┼──► Model, with `record["policy"]` and what is kept aside
    preprocessor_config.json ──► Preparation ───────┘

Nothing of a shard is read before it is used, where it is needed in the type that it is stored in. Code in the folder is
never run. What no file says is guessed, and every guess is in `record["openvla"]["guesses"]` and in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vertebra import log
from vertebra.backbone.kernels import as_dtype
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.weights import assign, mapped_tensors, parameters_on_meta
from vertebra.errors import CheckpointError, ConfigError
from vertebra.interop.openvla import names, oft, policy, prismatic
from vertebra.interop.openvla import towers as timm
from vertebra.interop.openvla.folder import (
    ADAPTER,
    OpenVLAFacts,
    has_weights,
    kind_of,
    read_facts,
    require_one_size,
    small_files,
)
from vertebra.interop.openvla.folder import CONFIG as CONFIG_JSON
from vertebra.interop.openvla.found import FoundFolder
from vertebra.interop.openvla.images import image_facts
from vertebra.interop.openvla.lora import merged, read_lora
from vertebra.interop.openvla.options import Guesses, ImportOptions
from vertebra.model.aside import Aside
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.vision import FusedTowers, VisionTower
from vertebra.model.folder import own_weights
from vertebra.model.model import Model
from vertebra.model.projectors import Projector
from vertebra.reading import read_json
from vertebra.tune.folder import CONFIG, digest

CUT = ("image_aug", "openvla-7b-oft-finetuned", "openvla-7b-finetuned-libero")
"""Marks in the names of folders whose training cut images, the published ones among them."""
RECORD = "openvla"
"""The place in a model's record of what a folder was."""


def load_openvla(
    where: str | Path, options: ImportOptions | None = None, *, base: str | Path | None = None, **backbone: Any
) -> Model:
    """The model in a folder of OpenVLA's, OFT's or prismatic's; `backbone`: options of `load_backbone`.

    `base`: what an adapter in the folder goes on, for one without weights of its own.
    """
    folder, options, guesses = Path(where).expanduser(), options or ImportOptions(), Guesses()
    if not backbone.get("inference_mode", True) and backbone.get("dtype") is None:
        backbone["dtype"] = "float32"  # what every model is trained in unless somebody says otherwise
    dtype = as_dtype(backbone["dtype"]) if backbone.get("dtype") else None
    kind = kind_of(folder)
    if kind is None:
        raise CheckpointError(f"`{folder}` is no folder of OpenVLA's, of OFT's, nor a run of prismatic's")
    if kind != "prismatic":
        found = find_folder(folder, base, dtype, guesses)
    elif base is None:
        found = prismatic.find_run(folder, options)
    else:
        raise ConfigError(f"`base` is what an adapter goes on, and `{folder}` is a model of its own; leave it out")
    return build(found, options, guesses, **backbone)


def find_folder(folder: Path, base: str | Path | None, dtype: torch.dtype | None, guesses: Guesses) -> FoundFolder:
    """A folder in Hugging Face's form, with what OFT put beside it."""
    extras = oft.read_extras(folder) if kind_of(folder) == "oft" else None
    adapter = folder / ADAPTER
    whole = has_weights(folder) or not (adapter / CONFIG).is_file()  # what has neither is refused for its weights
    under = None if whole and base is None else _base(folder, base)
    facts = read_facts(folder, under)
    tensors, marks = mapped_tensors(under or folder), merged_before(under or folder)
    if under is not None and extras is not None and (adapter / CONFIG).is_file():
        lora = read_lora(adapter)
        if extras.vision:  # the towers come whole, their share of the adapter in them
            lora = lora.without(oft.WRAPPED)
        tensors = merged(tensors, lora, dtype=dtype, base=str(under), before=marks)
        marks = (*marks, lora.digest)
    elif under is not None:
        raise ConfigError(f"`base` is what an adapter goes on, and `{folder}` has none; leave it out")
    elif (adapter / CONFIG).is_file():
        guesses.add("its adapter is taken to be merged into its weights, as OFT leaves a folder that has both")
    if extras is not None and extras.vision:
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(oft.WRAPPED)}
        tensors = {**own, **extras.vision}
    llm = folder if (folder / CONFIG_JSON).is_file() else under
    assert llm is not None, "read_facts found a config"
    files = {**(small_files(under) if under else {}), **small_files(folder)}
    return FoundFolder(facts=facts, tensors=tensors, llm=llm, files=files, extras=extras, merged=marks)


def _base(folder: Path, base: str | Path | None) -> Path:
    """The folder of the base that an adapter goes on: the one given, or the one that it names."""
    named: Any = base
    if named is None and (folder / ADAPTER / CONFIG).is_file():
        named = read_json(folder / ADAPTER / CONFIG).get("base_model_name_or_path")
        if named is not None and not Path(str(named)).expanduser().is_dir():
            named = folder.parent / Path(str(named)).name  # the base under its own name beside the folder
    if named is None or not Path(named).expanduser().is_dir():
        raise CheckpointError(
            f"`{folder}` has no weights, only what goes on a base; give the folder of its base: base=…, or --base"
        )
    return Path(named).expanduser()


def merged_before(folder: Path) -> tuple[str, ...]:
    """Marks of the adapters that a folder says are in its weights."""
    adapter = folder / ADAPTER
    return (digest([adapter]),) if has_weights(folder) and (adapter / CONFIG).is_file() else ()


def build(found: FoundFolder, options: ImportOptions, guesses: Guesses, **asked: Any) -> Model:
    """The model of what was found."""
    facts = found.facts
    asked.pop("weights", None)
    quantization = asked.pop("quantization", None)
    runs = bool(asked.pop("inference_mode", True))
    steps = steps_of(found, options, guesses)
    # their configs hold what differs from a class's defaults: only the model that was built knows its width
    backbone = load_backbone(found.llm, inference_mode=True, **asked)
    kinds, image = image_part(found, options, backbone.embedding_width, steps)
    given = names.sort(found.tensors, kinds, image, where=facts.where)
    image.load_state_dict(given.image, assign=True)
    _fill(backbone, given.language, facts)
    if quantization is not None:
        backbone.quantize(quantization)
    record, parts, heads = policy.acting(facts, backbone, found.extras, options, guesses)
    about = {
        "kinds": list(kinds), "timm": list(facts.timm_ids), "guesses": guesses.made, "merged": list(found.merged),
        "files": dict(found.extras.files) if found.extras else {}, "rank": found.extras.rank if found.extras else None,
    }  # fmt: skip
    made = Model(
        backbone,
        {names.IMAGE: image, **parts},
        heads=heads,
        record={**record, RECORD: about},
        aside=Aside(tensors=given.aside, files=found.files),
    )
    for modules in (made.parts, made.heads):
        modules.to(device=backbone.device, dtype=backbone.dtype)
    for sentence in guesses.made:
        log.info(f"{facts.where}: {sentence}")
    return made.eval() if runs else to_train(made)


def steps_of(found: FoundFolder, options: ImportOptions, guesses: Guesses) -> tuple[str, ...]:
    """What happens to an image before its preparation: OFT resizes as its data were, and cuts where training did."""
    resized = ("tf-lanczos",) if found.extras is not None else ()
    cut = options.center_crop
    if cut is None:
        cut = any(mark in found.facts.where for mark in CUT)
        if cut or resized:
            known = "for its name says so" if cut else "for nothing says that training cut them"
            guesses.add(f"images are {'cut' if cut else 'not cut'} to their middle, {known} (center_crop=…)")
    return (*resized, "tf-crop") if cut else resized


def image_part(
    found: FoundFolder, options: ImportOptions, width: int, steps: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], Part]:
    """The kinds of the towers, and the part without weights: towers and projector as the tensors are shaped."""
    facts, towers, kinds = found.facts, [], []
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    preparation, statistics = image_facts(facts, first=steps)
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
            config["hidden_act"] = facts.activation(number) or config["hidden_act"]
            shipped: dict[str, Any] = {
                "mean": mean,
                "std": std,
                "preparation": preparation,
                "name": timm_id,
                "film": film_of(own),
            }
            towers.append(VisionTower(config, block=-2, **shipped))
            kinds.append(row.kind)
        encoder = FusedTowers(towers, preparation=preparation) if len(towers) > 1 else towers[0]
        kind = "gelu3" if f"{names.PROJECTOR}fc3.weight" in shapes else "gelu2"
        return tuple(kinds), Part(encoder, Projector(kind, encoder.width, width), place="anchored")


def film_of(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """How wide what a tower hears is; None for one without FiLM."""
    return shapes["blocks.0.scale.weight"][1] if "blocks.0.scale.weight" in shapes else None


def _fill(backbone: Any, tensors: dict[str, torch.Tensor], facts: OpenVLAFacts) -> None:
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
    own_weights(model)
    model.train()
    backbone: Any = model.backbone
    backbone.set_to_train()
    return model

"""`load`: whatever a name means, as one type, ready to run.

    an id, a hub name, a GGUF file, a folder of a backbone    a model without parts
    a folder of `Model.save`                                  a model with its parts
    an adapter's folder                                       either of them with the adapter on it
    a run's folder                                            what the run left: its model, or its adapter
    a folder of OpenVLA's, OFT's, a run of prismatic's         towers, projector, language model, action head

It knows every kind of folder that we write; it knows nothing of what is done with a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vertebra.backbone.registry import load_backbone, require_name, row_of
from vertebra.backbone.source import left_by_run
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.interop.openvla.hub import openvla_folder
from vertebra.interop.openvla.options import NAMES, refuse_own, taken
from vertebra.interop.openvla.read import load_openvla
from vertebra.model.description import holds_parts
from vertebra.model.model import Model, model_of
from vertebra.tune.adapter import load_adapter
from vertebra.tune.record import base_of, is_adapter_folder


def load(name: str | Path, *, base: str | Path | None = None, **options: Any) -> Model:
    """The model of a name, with its weights and in inference mode unless `options` (`load_backbone`'s) differ.

    `base`: for an adapter, the base that it goes on; by default the one that it names. To train, give
    `inference_mode=False`. What a folder of OpenVLA's kin does not say of itself may be among the options
    (`vertebra.interop.ImportOptions`).
    """
    _require_known(options)
    theirs = openvla_folder(name, token=options.get("hf_token"))
    if theirs is not None:
        own, rest = taken(options)
        return load_openvla(theirs, own, base=base, **rest)
    refuse_own(options, name)
    require_name(name)
    options = {"inference_mode": True, **options}
    runs = bool(options["inference_mode"])
    known = row_of(str(name)) is not None
    where = name if known else left_by_run(name)
    here = None if known or not Path(where).expanduser().is_dir() else where
    if here is not None and is_adapter_folder(here):
        model = load(base or base_of(here), **options)
        load_adapter(model, here, trainable=not runs, name=str(here))
        return model.eval() if runs else model
    if base is not None:
        raise ConfigError(f"`base` is the base of an adapter, and `{name}` is a model of its own; leave it out")
    if here is not None and holds_parts(here):
        return Model.load(here, **options)
    return model_of(load_backbone(where, **{"weights": runs, **options}))


def _require_known(options: Iterable[str]) -> None:
    known = {*inspect.signature(load_backbone).parameters, "base", *NAMES} - {"name"}
    for option in options:
        if option not in known:
            raise UnknownNameError("option of `load`", option, known)

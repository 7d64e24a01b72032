"""A model's first layer with all that stands around its layers: what the library's code does there is shown at a
thirtieth of the cost, and the model itself is not touched.

    model.embed_tokens ─► layers.0 ─► (layers.1 … 29 left out) ─► norm ─► lm_head
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import nn

STOCK = "transformers.models."
"""Only classes of the library are shown so: what others do between their layers is not known."""


def with_first_layer(llm: Any) -> Any | None:
    """A second model of the same modules with one decoder layer; None where the class is not the library's own, or has
    no plain list of layers behind its base model."""
    body = getattr(llm, "base_model", None)
    if body is None or body is llm or not all(type(one).__module__.startswith(STOCK) for one in (llm, body)):
        return None
    layers = getattr(body, "layers", None)
    if type(layers) is not nn.ModuleList or len(layers) < 2:
        return None
    own = _beside(body)
    own._modules["layers"] = nn.ModuleList([layers[0]])
    made = _beside(llm)
    made._modules[llm.base_model_prefix] = own
    return made


def _beside(module: nn.Module) -> Any:
    """Another module with the same children and parameters, in tables of its own."""
    made = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict | OrderedDict) and name.startswith("_"):
            vars(made)[name] = type(value)(value)
    return made

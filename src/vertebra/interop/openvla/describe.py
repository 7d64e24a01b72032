"""What a folder of OpenVLA's kin is made of, as `vertebra info` draws a folder of ours: its tensors are mapped, not read."""

from __future__ import annotations

from pathlib import Path

from vertebra.interop.openvla.read import load_openvla
from vertebra.model.description import MultimodalFacts, facts_of
from vertebra.model.folder import record_of


def describe_openvla(where: str | Path) -> MultimodalFacts:
    """The facts of a folder of OpenVLA's or OFT's, or of a run of prismatic's."""
    model = load_openvla(where)
    headers = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "data_offsets": [0, tensor.numel() * tensor.element_size()],
        }
        for name, tensor in model.state_dict().items()
    }
    layers = getattr(model.backbone.llm.config, "num_hidden_layers", None)
    return facts_of(str(where), record_of(model), headers, layers=layers)

"""New parts and heads for a backbone: projectors aimed at its embedding matrix, outputs brought to the size of its
tokens; heads as wide as its states.

Loading a model folder does not come through here: there the sizes are whatever training made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vertebra.backbone.kept import key_shape, rotary_theta
from vertebra.model.encoders.part import ItemEncoder, Part, Place
from vertebra.model.encoders.queries import Queries, Start
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.heads.flow import FlowHead
from vertebra.model.heads.interface import ActionHead
from vertebra.model.heads.l1 import L1Head
from vertebra.model.projectors import Projector, bring_to_size, mark, rms

SAMPLE = 16
"""How many sample items the size is measured on."""
_ROWS = 512


@torch.no_grad()
def token_rms(backbone: Any) -> float:
    """How large this model's token embeddings are, scales included (Gemma multiplies by the root of its width)."""
    count = len(backbone.tokenizer)
    ids = torch.arange(0, count, max(1, count // _ROWS), device=backbone.device)
    return rms(backbone.embed_input_ids(ids[None]))


def new_part(backbone: Any, encoder: ItemEncoder, projector: str = "gelu2", *, place: Place = "slots") -> Part:
    """A part with a new projector (`linear`, `gelu2`, `gelu3`), whose embeddings are as large as tokens."""
    made = Part(encoder, Projector(projector, encoder.width, backbone.embedding_width), place=place)
    values = encoder.sample(SAMPLE, torch.Generator().manual_seed(0))
    device = next(encoder.parameters(), torch.empty(0)).device
    bring_to_size(made.projector, encoder(values.to(device)), token_rms(backbone))
    made.drawn = mark(made.projector)
    return made.to(backbone.device)


def new_queries(backbone: Any, count: int, *, start: Start = "normal", learned: bool = True) -> Queries:
    """Embeddings for `count` slots that nothing outside fills."""
    made = Queries(count, backbone.embedding_width, start=start, learned=learned)
    made.bring_to_size(token_rms(backbone))
    return made.to(backbone.device)


def new_l1(
    backbone: Any, *, chunk: int, dims: int, hidden: int | None = None, blocks: int = 2, one_slot: bool = False
) -> ActionHead:
    """An L1 head for a backbone's hidden states; its slots are filled by `new_queries(backbone, head.slots)`."""
    head = L1Head(entering_width(backbone), chunk=chunk, dims=dims, hidden=hidden, blocks=blocks, one_slot=one_slot)
    return head.to(_device(backbone))


def new_flow(
    backbone: Any,
    *,
    chunk: int,
    dims: int,
    width: int | None = None,
    layers: Sequence[int] | None = None,
    **settings: Any,
) -> ActionHead:
    """A flow-matching head whose expert reads the keys of a backbone's `layers` (None: all). `width`: of the expert; half
    the backbone's by default. Its one slot is filled by `new_queries(backbone, 1)`; `settings` are those of `FlowHead`."""
    config = backbone.llm.config.get_text_config()
    count, key_heads, head_dim = key_shape(config)
    found: dict[str, Any] = {
        "layers": range(count) if layers is None else layers,
        "heads": int(config.num_attention_heads),
        "key_heads": key_heads,
        "head_dim": head_dim,
        "theta": rotary_theta(config),
    }
    wide = max(2, config.hidden_size // 4 * 2) if width is None else width
    head = FlowHead(wide, chunk=chunk, dims=dims, **(found | settings))
    return head.to(_device(backbone))


def entering_width(backbone: Any) -> int:
    """The width of the hidden states that a head reads: those that enter the language model's own head."""
    output = backbone.llm.get_output_embeddings()
    return int(output.in_features if hasattr(output, "in_features") else output.weight.shape[1])


def _device(backbone: Any) -> torch.device:
    return backbone.llm.get_input_embeddings().weight.device


class _AsGiven(nn.Identity):
    """A projector that changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width_out = width


def given_part(width: int) -> Part:
    """A part for embeddings that were made elsewhere: an item is one embedding of the model's width, taken as it is."""
    return Part(VectorEncoder(width), _AsGiven(width)).eval()  # type: ignore[arg-type]

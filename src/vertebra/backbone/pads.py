"""Which token pads: chosen once, while a backbone is made; where there is none, one is added and stays.

a recorded pad      a folder of ours keeps what it was saved with
the family's rule   LLaMA-2 and Mistral add `<PAD>`, Phi-2 `<|pad|>`, as the original code did
the general rule    a pad that ends nothing, else unk, else a reserved token; else `<PAD>` is added
"""

from __future__ import annotations

from typing import Any

from vertebra.backbone.families.table import Family
from vertebra.backbone.habits import choose_pad
from vertebra.backbone.vocabulary import ADDED_PAD, add_own_pad, follow_pad


def set_pad(backbone: Any, family: Family) -> None:
    """Give the tokenizer its pad token, the matrices its row, and both configs its id."""
    tokenizer = backbone.tokenizer
    if any(growth.is_pad for growth in backbone.growths):
        follow_pad(backbone)
        return
    always = family.pad_token
    chosen = always if always is not None else choose_pad(tokenizer, backbone.eos_token_ids)
    if chosen is not None and chosen in tokenizer.get_vocab():
        tokenizer.pad_token = chosen
        follow_pad(backbone)
    else:
        add_own_pad(backbone, chosen or ADDED_PAD, multiple_of=family.multiple_of, drop_spare=family.drops_spare_rows)

"""Which token pads: chosen once, while a backbone is made; where there is none, one is added and stays.

a recorded pad      a folder of ours keeps what it was saved with
the family's rule   LLaMA-2 and Mistral add `<PAD>`, Phi-2 `<|pad|>`, as the original code did
the general rule    a pad that ends nothing, else unk, else a reserved token; else `<PAD>` is added
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vertebra import log
from vertebra.backbone.facts import NO_FAMILY
from vertebra.backbone.families.models import Family
from vertebra.backbone.habits import choose_pad, token_id
from vertebra.backbone.vocabulary import ADDED_PAD, add_own_pad, follow_pad


def set_pad(backbone: Any, family: Family, *, found: bool = False) -> None:
    """Give the tokenizer its pad token, the matrices its row, and both configs its id.

    `found`: nobody named the family, the folder's facts did. A pad that somebody trained then stays, and a pad that is
    added is told.
    """
    tokenizer, rows = backbone.tokenizer, backbone.num_rows
    if any(growth.is_pad for growth in backbone.growths):
        follow_pad(backbone)
        return
    always = None if found and _has_own(tokenizer, backbone.eos_token_ids) else family.pad_token
    chosen = always if always is not None else choose_pad(tokenizer, backbone.eos_token_ids)
    if chosen is not None and token_id(tokenizer, chosen) is not None:
        tokenizer.pad_token = chosen
        follow_pad(backbone)
        return
    add_own_pad(backbone, chosen or ADDED_PAD, multiple_of=family.multiple_of, drop_spare=family.drops_spare_rows)
    if found and not backbone.facts_guessed:
        log.info(
            f"`{backbone.identifier}` is of the family `{family.name}`, by its class and vocabulary: `{tokenizer.pad_token}` "
            f"({tokenizer.pad_token_id}) was added to pad, and {rows} rows became {backbone.num_rows}, as for the family's "
            f'ids. Another family can be named (`family="{NO_FAMILY}"` reads the facts off the model)'
        )


def _has_own(tokenizer: Any, ends: Iterable[int]) -> bool:
    """Whether the tokenizer pads with a token that is nothing else."""
    pad = tokenizer.pad_token
    return pad is not None and pad != tokenizer.unk_token and tokenizer.pad_token_id not in ends

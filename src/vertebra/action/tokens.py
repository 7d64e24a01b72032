"""Which tokens say actions, where a vocabulary has none of its own: reserved ones that nobody uses, or added ones.

    <ACT>  <ACT:0>  <ACT:1>  …  <ACT:255>        added: `grow_vocabulary(backbone, action_tokens(256))`
    <|reserved_special_token_2|>, <unused7> …    reserved: `reserved_ids(tokenizer.get_vocab(), 256, special=…)`

It reads a vocabulary as a mapping of names to ids, and changes none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vertebra.errors import VocabularyError

OPENS = "<ACT>"
"""What stands before an action."""
_RESERVED = re.compile(
    r"<\|?(reserved_special_token|reserved_token|reserved|unused|extra|extra_id|SPECIAL|dummy)_?(\d+)\|?>|\[unused(\d+)\]",
    re.IGNORECASE,
)


def action_tokens(count: int, *, opens: bool = True) -> tuple[str, ...]:
    """The names of `count` bins' tokens, behind `<ACT>`, which opens an action."""
    return ((OPENS,) if opens else ()) + tuple(f"<ACT:{number}>" for number in range(count))


def token_ids(vocabulary: Mapping[str, int], names: Collection[str]) -> tuple[int, ...]:
    """The ids of names that a vocabulary must hold."""
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise VocabularyError(
            f"the vocabulary has no {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}; add the tokens first: "
            "grow_vocabulary(backbone, action_tokens(count))"
        )
    return tuple(int(vocabulary[name]) for name in names)


def reserved_ids(vocabulary: Mapping[str, int], count: int, *, special: Collection[int] = ()) -> tuple[int, ...]:
    """The last `count` ids, ascending, of tokens that a vocabulary keeps free; `special` ids are in use and left out.

    Those in use are what a tokenizer names: its BOS, EOS, padding, the ends of its turns.
    """
    used = {int(one) for one in special}
    free = sorted(int(number) for name, number in vocabulary.items() if _RESERVED.fullmatch(name))
    free = [number for number in free if number not in used]
    if len(free) < count:
        raise VocabularyError(
            f"{count} reserved tokens are needed, and this vocabulary keeps {len(free)} free; add tokens instead: "
            "grow_vocabulary(backbone, action_tokens(count))"
        )
    return tuple(free[-count:])

"""Growing a vocabulary, and its exact inverse: the tokenizer, both matrices and the head's bias as one operation.

    rows   0 … tokens that existed … │ spare │ new tokens │ rows that only pad to a multiple
           kept, bit for bit                   distinct, in BOTH matrices

Every growth is a record (`Growth`). The same record replays it on base weights, undoes it, and travels in the
checkpoint. A growth never writes over a row that some token uses, and never shrinks a matrix, but for the pad of a family
whose original code did (Phi-2).
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from vertebra.backbone.growth import KEEP, Growth, replay
from vertebra.backbone.matrices import matrices, num_rows, resize, write_rows
from vertebra.errors import UnknownNameError, VocabularyError

Init = Literal["mean", "mean+noise", "normal"]
_INITS = ("mean", "mean+noise", "normal")
ADDED_PAD = "<PAD>"
"""The pad token that is added where a tokenizer has none to choose, and its family names none."""


def grow_vocabulary(
    backbone: Any,
    tokens: Sequence[str],
    init: Init | Mapping[str, Sequence[str]] = "mean+noise",
    *,
    special: bool = True,
    multiple_of: int = 1,
    only_new_trainable: bool = False,
    is_pad: bool = False,
    seed: int = 0,
) -> Growth:
    """Add tokens to a backbone's tokenizer and rows to its matrices; returns the record, which the backbone keeps.

    `init`: `mean` (of the rows that tokens use), `mean+noise`, `normal` (the model's initializer range), or a mapping
    from each new token to existing ones whose mean it starts from (`{"<ACT>": ["move", "go"]}`).
    """
    backbone.require_members()
    tokenizer = backbone.tokenizer
    how, like = _checked(tokenizer, tokens, init, multiple_of, is_pad)
    vocab_before, pad_before, rows_before = len(tokenizer), tokenizer.pad_token, num_rows(backbone.llm)
    ids = _add_tokens(tokenizer, tokens, special=special, is_pad=is_pad)
    growth = Growth(
        tokens=tuple(tokens),
        ids=ids,
        special=special,
        init=how,
        like=like,
        seed=seed,
        vocab_before=vocab_before,
        rows_before=rows_before,
        rows_after=_padded(max(rows_before, max(ids) + 1), multiple_of),
        is_pad=is_pad,
        pad_before=pad_before,
    )
    _take(backbone, growth)
    if only_new_trainable:
        train_only_new_rows(backbone)
    return growth


def grow_to(
    backbone: Any, tokens: Iterable[str], init: Init = "mean+noise", *, special: bool = True, seed: int = 0
) -> None:
    """Add those of these tokens that the vocabulary does not have; those that are not special are found in any text."""
    known = backbone.tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(tokens) if token not in known]
    if new:
        grow_vocabulary(backbone, new, init, special=special, seed=seed)


def _padded(rows: int, multiple_of: int) -> int:
    return -(-rows // multiple_of) * multiple_of


def _take(backbone: Any, growth: Growth) -> None:
    """Grow the matrices by tokens that the tokenizer has already, and keep the record."""
    replay(backbone.llm, growth)
    backbone.growths.append(growth)
    if growth.is_pad:
        follow_pad(backbone)
    _restrict_again(backbone)


def add_own_pad(backbone: Any, token: str, *, multiple_of: int, drop_spare: bool) -> Growth:
    """The pad token that the library itself adds while a backbone is made.

    A spare row that it falls on keeps its values. `drop_spare`: rows beyond the padded vocabulary are cut off.
    """
    tokenizer, rows = backbone.tokenizer, num_rows(backbone.llm)
    vocab_before, pad_before = len(tokenizer), tokenizer.pad_token
    ids = _add_tokens(tokenizer, [token], special=True, is_pad=True)
    growth = Growth(
        tokens=(token,),
        ids=ids,
        special=True,
        init=KEEP if ids[0] < rows else "mean",
        seed=0,
        vocab_before=vocab_before,
        rows_before=rows,
        rows_after=_padded(len(tokenizer) if drop_spare else max(rows, ids[0] + 1), multiple_of),
        is_pad=True,
        pad_before=pad_before,
    )
    _take(backbone, growth)
    return growth


def _is_own_pad(backbone: Any, growth: Growth) -> bool:
    """Whether the library added this pad itself: then it is the first growth, made before anybody could ask for one."""
    names = {ADDED_PAD, getattr(getattr(backbone, "family", None), "pad_token", None)}
    return (
        growth is backbone.growths[0] and growth.is_pad and growth.init in ("mean", KEEP) and {*growth.tokens} <= names
    )


def regrow(backbone: Any, growth: Growth) -> None:
    """Apply a recorded growth to a backbone that has not seen it: tokenizer and matrices, with the same ids and rows."""
    now = (len(backbone.tokenizer), num_rows(backbone.llm))
    if now != (growth.vocab_before, growth.rows_before):
        raise VocabularyError(
            f"the tokens {list(growth.tokens)} were added to {growth.vocab_before} tokens and {growth.rows_before} rows; "
            f"`{backbone.identifier}` has {now[0]} and {now[1]}. Load the base that they were added to"
        )
    ids = _add_tokens(backbone.tokenizer, growth.tokens, special=growth.special, is_pad=growth.is_pad)
    if ids != growth.ids:
        raise VocabularyError(f"the tokens {list(growth.tokens)} got the ids {ids}; {growth.ids} are recorded")
    _take(backbone, growth)


def undo_growth(backbone: Any) -> Growth:
    """Take the last growth back: tokens leave the tokenizer, rows leave the matrices, displaced rows return.

    The pad that the library added itself stays: without it the backbone could not pad.
    """
    if not backbone.growths:
        raise VocabularyError(f"the vocabulary of `{backbone.identifier}` was not grown; there is nothing to undo")
    growth: Growth = backbone.growths[-1]
    if _is_own_pad(backbone, growth):
        raise VocabularyError(
            f"there is no growth left to undo: `{growth.tokens[0]}` ({growth.ids[0]}) is the pad token that "
            f"`{backbone.identifier}` was made with, and stays"
        )
    lost = [m.name for m in matrices(backbone.llm) if not m.parameter.is_meta and m.name not in growth.displaced]
    if growth.spare and lost:
        raise VocabularyError(
            f"the tokens {list(growth.tokens)} took over rows {growth.spare} that the matrices had already, and the grown "
            f"weights that were loaded do not hold what stood there ({', '.join(lost)}). Load the base weights, or a "
            "folder that `save` wrote"
        )
    backbone.growths.pop()
    for matrix in matrices(backbone.llm):
        if matrix.name in growth.displaced:
            write_rows(matrix.parameter, growth.spare, growth.displaced[matrix.name])
    # never more rows than there are: loaded weights may have had fewer, and nobody could fill the others
    resize(backbone.llm, min(growth.rows_before, num_rows(backbone.llm)))
    _remove_tokens(backbone.tokenizer, growth)
    if growth.is_pad:
        follow_pad(backbone)
    _restrict_again(backbone)
    return growth


def follow_pad(backbone: Any) -> None:
    """Tell the model which id pads, in both configs, and let no embedding freeze a row that also ends sequences."""
    pad = backbone.tokenizer.pad_token_id
    backbone.llm.config.pad_token_id = pad
    if backbone.llm.generation_config is not None:
        backbone.llm.generation_config.pad_token_id = pad
    embedding = backbone.llm.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) is not None and embedding.padding_idx != pad:
        embedding.padding_idx = None


def new_row_ids(backbone: Any) -> list[int]:
    """Ids of all tokens that were added, pads apart: what trains when only new rows train."""
    return sorted(i for growth in backbone.growths if not growth.is_pad for i in growth.ids)


def train_only_new_rows(backbone: Any) -> Callable[[], None]:
    """Let gradients reach the rows of new tokens alone; returns a function that lifts this again.

    A folder that is saved remembers it, and it holds again when the folder is loaded to train. An optimizer's weight
    decay moves rows without gradient too: give `restricted_parameters` none.
    """
    _restricted.pop(backbone, _nothing)()  # an earlier restriction would hide the rows that came since
    rows = torch.tensor(new_row_ids(backbone), dtype=torch.long)
    if not len(rows):
        raise VocabularyError("no token was added yet, so that no row is new; call grow_vocabulary first")

    def keep_new(gradient: torch.Tensor) -> torch.Tensor:
        kept = torch.zeros_like(gradient)
        index = rows.to(gradient.device)
        kept[index] = gradient[index]
        return kept

    hooks = []
    for matrix in matrices(backbone.llm):
        matrix.parameter.requires_grad_(True)
        hooks.append(matrix.parameter.register_hook(keep_new))

    def lift() -> None:
        _restricted.pop(backbone, None)
        for hook in hooks:
            hook.remove()

    _restricted[backbone] = lift
    return lift


def restricted_parameters(backbone: Any) -> list[nn.Parameter]:
    """The tables of which only new tokens' rows train; none where nothing is restricted."""
    return [matrix.parameter for matrix in matrices(backbone.llm)] if backbone in _restricted else []


def _restrict_again(backbone: Any) -> None:
    """Tables that change their size become new parameters, without the restriction that the old ones had."""
    if backbone not in _restricted:
        return
    if new_row_ids(backbone):
        train_only_new_rows(backbone)
    else:
        _restricted[backbone]()


# Beside the backbone and not on it: a function that removes hooks does not pickle.
_restricted: weakref.WeakKeyDictionary[Any, Callable[[], None]] = weakref.WeakKeyDictionary()


def _nothing() -> None:
    """What lifting means where nothing is restricted."""


def _checked(
    tokenizer: Any, tokens: Sequence[str], init: Init | Mapping[str, Sequence[str]], multiple_of: int, is_pad: bool
) -> tuple[str, tuple[tuple[int, ...], ...]]:
    if isinstance(tokens, str):
        raise VocabularyError(f"tokens must be a list, as in [{tokens!r}]; a string would be taken letter by letter")
    if not isinstance(tokens, Sequence) or not all(isinstance(token, str) for token in tokens):
        raise VocabularyError(f"tokens are {tokens!r:.80}; expected a list of strings, as in ['<ACT>']")
    if not tokens:
        raise VocabularyError("no tokens were given; expected at least one")
    if not isinstance(multiple_of, int) or multiple_of < 1:
        raise VocabularyError(f"multiple_of is {multiple_of!r}; expected a whole number, 1 or more")
    if is_pad and len(tokens) != 1:
        raise VocabularyError(f"a tokenizer has one pad token; {len(tokens)} were given")
    vocabulary = tokenizer.get_vocab()
    faults = [f"{token!r} is given twice" for token in sorted(set(tokens)) if list(tokens).count(token) > 1]
    faults += [f"{token!r} exists already with id {vocabulary[token]}" for token in tokens if token in vocabulary]
    faults += [f"{token!r} is blank" for token in tokens if not token.strip()]
    if faults:
        raise VocabularyError(f"these tokens cannot be added: {'; '.join(faults)}. Leave them out")
    if not isinstance(init, Mapping):
        if init not in _INITS:
            raise UnknownNameError("initialization of new rows", init, _INITS)
        return init, ()
    for token in init:
        if token not in tokens:
            raise UnknownNameError("new token in `init`", token, tokens, hint="It is not among the tokens to add.")
    return "like", tuple(_models(tokenizer, token, init) for token in tokens)


def _models(tokenizer: Any, token: str, init: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
    """Ids of the tokens whose rows a new token starts from; a word of several tokens gives them all."""
    if token not in init:
        raise VocabularyError(f"`init` has nothing for {token!r}; it has {', '.join(init) or 'no token'}")
    words = [init[token]] if isinstance(init[token], str) else init[token]
    ids = tuple(i for word in words for i in tokenizer(word, add_special_tokens=False).input_ids)
    if not ids:
        raise VocabularyError(f"`init` gives no existing text for {token!r}; expected words such as ['move', 'go']")
    return ids


def _add_tokens(tokenizer: Any, tokens: Sequence[str], *, special: bool, is_pad: bool) -> tuple[int, ...]:
    from tokenizers import AddedToken

    before = len(tokenizer)
    added = [AddedToken(token, special=special, normalized=False) for token in tokens]
    if is_pad:
        tokenizer.add_special_tokens({"pad_token": added[0]})
    else:
        tokenizer.add_tokens(added, special_tokens=special)
    if len(tokenizer) != before + len(tokens):
        raise VocabularyError(f"the tokenizer took {len(tokenizer) - before} of {len(tokens)} tokens: {list(tokens)}")
    return tuple(int(i) for i in tokenizer.convert_tokens_to_ids(list(tokens)))


def _remove_tokens(tokenizer: Any, growth: Growth) -> None:
    """A fast tokenizer cannot forget a token, but it can be written down without it."""
    from tokenizers import Tokenizer

    written = json.loads(tokenizer.backend_tokenizer.to_str())
    written["added_tokens"] = [entry for entry in written["added_tokens"] if entry["content"] not in growth.tokens]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(written))
    if growth.is_pad:
        tokenizer.pad_token = growth.pad_before

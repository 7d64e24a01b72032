"""Growing a vocabulary, and its exact inverse: the tokenizer, both matrices and the head's bias as one operation.

    rows   0 … tokens that existed … │ spare │ new tokens │ rows that only pad to a multiple
           kept, bit for bit                   distinct, in BOTH matrices

Every growth is a record (`Growth`). The same record replays it on base weights, undoes it, and travels in the
checkpoint. A growth never shrinks a matrix and never writes over a row that some token uses.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import nn

from vertebra.backbone.matrices import matrices, num_rows, resize, row_statistics, write_rows
from vertebra.errors import UnknownNameError, VocabularyError

Init = Literal["mean", "mean+noise", "normal"]
_INITS = ("mean", "mean+noise", "normal")
# Noise in units of the real rows' own spread: new rows differ from each other, yet start where tokens live.
_NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One growth of the vocabulary, as it is recorded in a checkpoint."""

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    special: bool
    init: str
    """`mean`, `mean+noise`, `normal`, or `like` for rows that start from those of given tokens."""
    like: tuple[tuple[int, ...], ...] = ()
    """For `like`: per new token, the ids whose rows it starts as the mean of."""
    seed: int
    vocab_before: int
    rows_before: int
    rows_after: int
    is_pad: bool
    pad_before: str | None
    displaced: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    """Spare rows (Qwen, Phi and OPT have more rows than tokens) that new tokens took over, for the exact inverse."""

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "displaced"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Growth:
        return cls(
            **{
                **data,
                "tokens": tuple(data["tokens"]),
                "ids": tuple(data["ids"]),
                "like": tuple(tuple(ids) for ids in data["like"]),
            }
        )

    @property
    def spare(self) -> list[int]:
        """New tokens' rows that the matrix had already."""
        return [i for i in self.ids if i < self.rows_before]

    @property
    def written(self) -> list[int]:
        """Every row that this growth writes: its tokens' and the ones that pad to a multiple."""
        return sorted({*self.ids, *range(self.rows_before, self.rows_after)})


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
    tokenizer = backbone.tokenizer
    how, like = _checked(tokenizer, tokens, init, multiple_of, is_pad)
    vocab_before, pad_before, rows_before = len(tokenizer), tokenizer.pad_token, num_rows(backbone.llm)
    ids = _add_tokens(tokenizer, tokens, special=special, is_pad=is_pad)
    needed = max(rows_before, max(ids) + 1)
    growth = Growth(
        tokens=tuple(tokens),
        ids=ids,
        special=special,
        init=how,
        like=like,
        seed=seed,
        vocab_before=vocab_before,
        rows_before=rows_before,
        rows_after=-(-needed // multiple_of) * multiple_of,
        is_pad=is_pad,
        pad_before=pad_before,
    )
    replay(backbone.llm, growth)
    backbone.growths.append(growth)
    if is_pad:
        follow_pad(backbone)
    if only_new_trainable:
        train_only_new_rows(backbone)
    else:
        _restrict_again(backbone)
    return growth


def replay(llm: Any, growth: Growth) -> None:
    """Grow the matrices as the record says; on a meta structure only their shapes change."""
    resize(llm, growth.rows_after)
    for matrix in matrices(llm):
        if matrix.parameter.is_meta:
            continue
        if growth.spare:
            growth.displaced[matrix.name] = matrix.parameter.detach()[growth.spare].clone()
        write_rows(matrix.parameter, growth.written, _new_rows(matrix.parameter, matrix.name, growth, llm.config))


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
    replay(backbone.llm, growth)
    backbone.growths.append(growth)
    if growth.is_pad:
        follow_pad(backbone)
    _restrict_again(backbone)


def undo_growth(backbone: Any) -> Growth:
    """Take the last growth back: tokens leave the tokenizer, rows leave the matrices, displaced rows return."""
    if not backbone.growths:
        raise VocabularyError(f"the vocabulary of `{backbone.identifier}` was not grown; there is nothing to undo")
    growth: Growth = backbone.growths[-1]
    lost = [m.name for m in matrices(backbone.llm) if not m.parameter.is_meta and m.name not in growth.displaced]
    if growth.spare and lost:
        raise VocabularyError(
            f"the tokens {list(growth.tokens)} took over rows {growth.spare} that the matrices had already, and the grown "
            f"weights that were loaded do not tell what stood there ({', '.join(lost)}). Load the base weights, or a "
            "folder that `save` wrote"
        )
    backbone.growths.pop()
    for matrix in matrices(backbone.llm):
        if matrix.name in growth.displaced:
            write_rows(matrix.parameter, growth.spare, growth.displaced[matrix.name])
    resize(backbone.llm, growth.rows_before)
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
        raise VocabularyError(f"`init` says nothing of {token!r}; it has {', '.join(init) or 'no token'}")
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


def _new_rows(parameter: nn.Parameter, name: str, growth: Growth, config: Any) -> torch.Tensor:
    """The values of `growth.written`, a function of the record and the real rows alone, so that a replay is exact."""
    # Each table draws from a stream of its own: embedding and head must not start as copies of each other.
    generator = torch.Generator().manual_seed(growth.seed * 1009 + len(name))
    shape = (len(growth.written), *parameter.shape[1:])
    noise = torch.randn(shape, generator=generator)
    if growth.init == "normal":
        std = float(getattr(config, "initializer_range", 0.02)) if parameter.dim() > 1 else 0.0  # a bias starts at 0
        return (noise * std).to(parameter.device)
    mean, spread = row_statistics(parameter, min(growth.vocab_before, growth.rows_before))
    values = mean.expand(shape).clone()
    if growth.init == "like":
        at = {row: index for index, row in enumerate(growth.written)}
        for token_id, models in zip(growth.ids, growth.like, strict=True):
            values[at[token_id]] = parameter.detach()[list(models)].mean(0, dtype=torch.float32)
    if growth.init == "mean":
        return values
    return values + _NOISE * spread * noise.to(values.device)

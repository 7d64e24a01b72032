"""From logits to a token: rules as closures, and the choice.

    rule(scores [B, V], context) -> scores          every rule gives new scores; −inf means impossible

The order is that of transformers: what changes scores first (penalties, bans, forced ids), then temperature, top-k,
top-p and min-p. A token is drawn with one number a row from that row's own stream, so that of the same logits a row
draws the same, whatever else is in the batch. The logits themselves are the same up to rounding only: a model sums in
another order in a batch of another size. It knows no model.

    V columns of scores: the whole vocabulary, or the few ids of a `Space` whose head rows were computed alone
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vertebra.decode.choose.history import History
from vertebra.decode.settings import ROWS, Settings, ids_of

NEVER = float("-inf")


@dataclass(frozen=True, eq=False)
class Space:
    """Which ids the columns of the scores are; None: all of the vocabulary, in order."""

    ids: torch.Tensor | None = None

    def view(self, table: torch.Tensor) -> torch.Tensor:
        """A table over the vocabulary, its last dimension brought to the columns."""
        return table if self.ids is None else table[..., self.ids]

    def tokens(self, columns: torch.Tensor) -> torch.Tensor:
        """The ids of chosen columns."""
        return columns if self.ids is None else self.ids[columns]


@dataclass(eq=False)
class Context:
    """What a rule may look at besides the scores."""

    history: History | None
    """None where no rule reads it."""
    space: Space
    step: int = 0
    """How many tokens this call has said."""


Rule = Callable[[torch.Tensor, Context], torch.Tensor]


def rules_of(settings: Settings, *, ends: Sequence[int], vocabulary: int, last_step: int, prompt: int) -> list[Rule]:
    """The rules of one call. `ends`: ids that end a row; `last_step`: the index of the last token; `prompt`: columns."""
    rules: list[Rule] = []
    if settings.sequence_bias:
        rules.append(sequence_bias({tuple(ids): bias for ids, bias in settings.sequence_bias.items()}))
    if settings.repetition_penalty != 1.0:
        rules.append(repetition_penalty(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        rules.append(no_repeat_ngram(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        # a word that is an end of its own is no bad word: what ends a row is `eos_token_id`'s business
        bad = {tuple(ids): NEVER for ids in settings.bad_words_ids if tuple(ids) not in {(end,) for end in ends}}
        rules.append(sequence_bias(bad))
    shortest = max(settings.min_new_tokens, settings.min_length - prompt)
    if shortest > 0 and ends:
        rules.append(banned(ends, vocabulary, until=shortest))
    if settings.forced_bos_token_id is not None:
        rules.append(forced((settings.forced_bos_token_id,), vocabulary, at=0))
    if settings.forced_eos_token_id is not None:
        rules.append(forced(ids_of(settings.forced_eos_token_id), vocabulary, at=last_step))
    if settings.remove_invalid_values:
        rules.append(lambda scores, context: torch.nan_to_num(scores))
    if settings.suppress_tokens:
        rules.append(banned(settings.suppress_tokens, vocabulary))
    if settings.begin_suppress_tokens:
        rules.append(banned(settings.begin_suppress_tokens, vocabulary, until=1))
    rules += [_foreign(processor) for processor in settings.logits_processor]
    if settings.samples:
        rules += warps(settings)
    if settings.renormalize_logits:
        rules.append(lambda scores, context: scores.log_softmax(-1))
    return rules


def warps(settings: Settings) -> list[Rule]:
    """What shapes the distribution that is drawn from."""
    rules: list[Rule] = []
    if settings.temperature is not None and settings.temperature != 1.0:
        temperature = settings.temperature
        rules.append(lambda scores, context: scores / temperature)
    if settings.top_k:
        rules.append(top_k(settings.top_k))
    if settings.top_p is not None and settings.top_p < 1.0:
        rules.append(top_p(settings.top_p))
    if settings.min_p:
        rules.append(min_p(settings.min_p))
    return rules


def needs_history(settings: Settings) -> bool:
    """Whether any of these rules, or a stop string, looks at what was said."""
    return any(ROWS[name].reads for name in settings.differing if name in ROWS)


def _said(context: Context) -> History:
    assert context.history is not None
    return context.history


def top_k(k: int) -> Rule:
    """Keep the k best; more where the k-th is tied."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        if k >= scores.shape[-1]:
            return scores
        worst = scores.topk(k, dim=-1).values[..., -1:]
        return scores.masked_fill(scores < worst, NEVER)

    return rule


def top_p(p: float) -> Rule:
    """Keep the smallest set of best tokens that holds the probability p; the best one always."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        # the worst first, so that what goes is a beginning; stable, so that of equals the same ones stay in any space
        ordered, order = scores.sort(dim=-1, stable=True)
        below = ordered.softmax(-1).cumsum(-1) <= 1.0 - p
        below[..., -1] = False
        return scores.masked_fill(below.scatter(-1, order, below), NEVER)

    return rule


def min_p(p: float) -> Rule:
    """Keep what is at least p times as probable as the best."""
    gap = torch.tensor(p, dtype=torch.float64).log().item()

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) + gap, NEVER)

    return rule


def repetition_penalty(penalty: float) -> Rule:
    """Ids that stand in the row's text become less likely: positive scores are divided, negative ones multiplied."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        said = context.space.view(_said(context).said(scores.device))
        return torch.where(said, torch.where(scores < 0, scores * penalty, scores / penalty), scores)

    return rule


def no_repeat_ngram(size: int) -> Rule:
    """What would say n ids in a row that stand in the text already becomes impossible."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return _fill(scores, context, _said(context).repeats(size), NEVER)

    return rule


def sequence_bias(biases: dict[tuple[int, ...], float]) -> Rule:
    """Add a number to the score of the last id of a sequence wherever its other ids were just said."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        scores = scores.clone()
        for sequence, bias in biases.items():
            scores = _fill(scores, context, _said(context).follows(sequence[:-1], sequence[-1]), bias, add=True)
        return scores

    return rule


def banned(ids: Sequence[int], vocabulary: int, *, until: int | None = None) -> Rule:
    """These ids are impossible, always or before step `until`."""
    table = _table(ids, vocabulary)

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        if until is not None and context.step >= until:
            return scores
        return scores.masked_fill(context.space.view(table.to(scores.device)), NEVER)

    return rule


def forced(ids: Sequence[int], vocabulary: int, *, at: int) -> Rule:
    """At one step only these ids are possible, all alike."""
    table = _table(ids, vocabulary)

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        if context.step != at:
            return scores
        wanted = context.space.view(table.to(scores.device))
        return torch.full_like(scores, NEVER).masked_fill(wanted, 0.0)

    return rule


def _foreign(processor: Any) -> Rule:
    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return processor(_said(context).ids(scores.device), scores)

    return rule


def _table(ids: Sequence[int], vocabulary: int) -> torch.Tensor:
    table = torch.zeros(vocabulary, dtype=torch.bool)
    table[list(ids)] = True
    return table


def _fill(
    scores: torch.Tensor, context: Context, tokens: Sequence[Sequence[int]], value: float, *, add: bool = False
) -> torch.Tensor:
    """Scores with `value` at some tokens of each row."""
    flat = [(row, token) for row, ids in enumerate(tokens) for token in ids]
    if not flat:
        return scores
    rows, ids = (torch.tensor(part, device=scores.device) for part in zip(*flat, strict=True))
    change = torch.zeros(scores.shape[0], _said(context).vocabulary, dtype=torch.bool, device=scores.device)
    change[rows, ids] = True
    change = context.space.view(change)
    return torch.where(change, scores + value if add else torch.full_like(scores, value), scores)


def greedy(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(best column [B], its score [B]): no number where the row holds one that is none, −inf where nothing is left."""
    best = scores.max(-1)
    return best.indices, best.values


def drawn(scores: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(drawn column [B], its score [B]): the column at which the running sum of probabilities passes `uniform` [B, 1].

    In double, so that no column is drawn whose probability is zero: `uniform` is a float below 1.
    """
    running = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    column = torch.searchsorted(running, uniform.double() * running[:, -1:], right=True)
    column = column.clamp_(max=scores.shape[-1] - 1)  # a row of NaN passes nothing
    # a sum that is no number makes the score none
    return column[:, 0], scores.gather(-1, column)[:, 0] + running[:, -1] * 0

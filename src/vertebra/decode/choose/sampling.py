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

from vertebra.decode.allowed import ids_of
from vertebra.decode.choose.history import History
from vertebra.decode.settings import ROWS, DecodeConfig

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
    """How many tokens this call has generated."""


Rule = Callable[[torch.Tensor, Context], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a rule may be made for."""

    ends: Sequence[int]
    """Ids that end a row."""
    vocabulary: int
    last_step: int
    """The index of the last token."""
    prompt: int
    """Columns of the prompt."""


def rules_of(settings: DecodeConfig, call: Call, *, before: bool = False) -> list[Rule]:
    """The rules of one call, in their order. `before`: only those that come before what shapes the draw."""
    given = RULES.keys() & settings.differing
    if not given:
        return []
    names = [name for name in RULES if name in given and (settings.samples or not ROWS[name].shapes)]
    if before:
        names = [name for name in names if not ROWS[name].shapes and name != "renormalize_logits"]
    return [rule for name in names for rule in RULES[name](getattr(settings, name), call)]


def needs_history(settings: DecodeConfig) -> bool:
    """Whether a rule reads the text so far."""
    return any(ROWS[name].reads for name in settings.differing if name in ROWS)


def _history(context: Context) -> History:
    assert context.history is not None
    return context.history


def temperature(value: float) -> Rule:
    """Below 1 the best gain, above 1 the others."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return scores / value

    return rule


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


def typical_p(mass: float) -> Rule:
    """Keep the tokens whose surprise is nearest to what is to be expected, until they hold the probability `mass`."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        logs = scores.log_softmax(-1)
        expected = -(logs * logs.exp()).nansum(-1, keepdim=True)
        strange, order = (-logs - expected).abs().sort(-1)
        last = (scores.gather(-1, order).softmax(-1).cumsum(-1) < mass).sum(-1, keepdim=True)
        strangest = strange.gather(-1, last.clamp_(max=scores.shape[-1] - 1))
        gone = strange > strangest
        gone[..., 0] = False
        return scores.masked_fill(gone.scatter(-1, order, gone), NEVER)

    return rule


def top_h(share: float) -> Rule:
    """Keep the best tokens until they hold this share of the entropy of the hundred best."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        best, order = scores.topk(min(100, scores.shape[-1]), dim=-1)
        logs = best.log_softmax(-1)
        parts = torch.where(logs.isfinite(), -logs.exp() * logs, 0.0)
        kept = parts.cumsum(-1) <= share * parts.sum(-1, keepdim=True)
        kept[..., 0] = True
        return scores.masked_fill(~torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, kept), NEVER)

    return rule


def cutoff(least: float, *, by_entropy: bool = False) -> Rule:
    """Drop what is less probable than `least`, or than its root and e^-entropy make it; the best stays always."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        chances, bound = scores.softmax(-1), torch.tensor(least, device=scores.device)
        if by_entropy:
            entropy = -torch.where(chances > 0, chances * chances.log(), 0.0).sum(-1, keepdim=True)
            bound = torch.minimum(bound, bound.sqrt() * (-entropy).exp())
        return scores.masked_fill((chances < bound) & (scores < scores.amax(-1, keepdim=True)), NEVER)

    return rule


def decay(start: int, factor: float, ends: Sequence[int], vocabulary: int) -> Rule:
    """From step `start` on, ids that end a row become likelier, step by step."""
    table = _table(ends, vocabulary)

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        if context.step <= start:
            return scores
        ending = context.space.view(table.to(scores.device)) & scores.isfinite()
        return torch.where(ending, scores + scores.abs() * (factor ** (context.step - start) - 1), scores)

    return rule


def numbers_only(scores: torch.Tensor, context: Context) -> torch.Tensor:
    """What is no number becomes one."""
    return torch.nan_to_num(scores)


def renormalize(scores: torch.Tensor, context: Context) -> torch.Tensor:
    """Log probabilities."""
    return scores.log_softmax(-1)


def repetition_penalty(penalty: float) -> Rule:
    """Ids that stand in the row's text become less likely: positive scores are divided, negative ones multiplied."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        seen = context.space.view(_history(context).seen(scores.device))
        return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)

    return rule


def no_repeat_ngram(size: int) -> Rule:
    """What would say n ids in a row that stand in the text already becomes impossible."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return _fill(scores, context, _history(context).repeats(size), NEVER)

    return rule


def sequence_bias(biases: dict[tuple[int, ...], float]) -> Rule:
    """Add a number to the score of the last id of a sequence wherever its other ids were the last."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        scores = scores.clone()
        for sequence, bias in biases.items():
            scores = _fill(scores, context, _history(context).follows(sequence[:-1], sequence[-1]), bias, add=True)
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
        allowed = context.space.view(table.to(scores.device))
        return torch.full_like(scores, NEVER).masked_fill(allowed, 0.0)

    return rule


def processor(given: Any) -> Rule:
    """A rule of one's own, or the library's."""

    def rule(scores: torch.Tensor, context: Context) -> torch.Tensor:
        return given(_history(context).ids(scores.device), scores)

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
    change = torch.zeros(scores.shape[0], _history(context).vocabulary, dtype=torch.bool, device=scores.device)
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


def _bad_words(words: Sequence[Sequence[int]], call: Call) -> list[Rule]:
    # a word that is an end of its own is no bad word: what ends a row is `eos_token_id`'s business
    return [sequence_bias({tuple(ids): NEVER for ids in words if tuple(ids) not in {(end,) for end in call.ends}})]


def _not_yet(count: int, call: Call) -> list[Rule]:
    return [banned(call.ends, call.vocabulary, until=count)] if count > 0 and call.ends else []


RULES: dict[str, Callable[[Any, Call], list[Rule]]] = {
    "sequence_bias": lambda value, call: [sequence_bias({tuple(ids): bias for ids, bias in value.items()})],
    "repetition_penalty": lambda value, call: [repetition_penalty(value)],
    "no_repeat_ngram_size": lambda value, call: [no_repeat_ngram(value)],
    "bad_words_ids": _bad_words,
    "min_new_tokens": _not_yet,
    "min_length": lambda value, call: _not_yet(value - call.prompt, call),
    "forced_bos_token_id": lambda value, call: [forced((value,), call.vocabulary, at=0)],
    "forced_eos_token_id": lambda value, call: [forced(ids_of(value), call.vocabulary, at=call.last_step)],
    "remove_invalid_values": lambda value, call: [numbers_only],
    "exponential_decay_length_penalty": lambda value, call: [decay(value[0], value[1], call.ends, call.vocabulary)],
    "suppress_tokens": lambda value, call: [banned(ids_of(value), call.vocabulary)],
    "begin_suppress_tokens": lambda value, call: [banned(ids_of(value), call.vocabulary, until=1)],
    "logits_processor": lambda value, call: [processor(given) for given in value],
    "temperature": lambda value, call: [] if value == 1.0 else [temperature(value)],
    "top_h": lambda value, call: [top_h(value)],
    "top_k": lambda value, call: [top_k(value)] if value else [],
    "top_p": lambda value, call: [top_p(value)] if value < 1.0 else [],
    "min_p": lambda value, call: [min_p(value)] if value else [],
    "typical_p": lambda value, call: [typical_p(value)] if value < 1.0 else [],
    "epsilon_cutoff": lambda value, call: [cutoff(value)] if value else [],
    "eta_cutoff": lambda value, call: [cutoff(value, by_entropy=True)] if value else [],
    "renormalize_logits": lambda value, call: [renormalize],
}
"""The rule that each setting makes, in the order in which they are applied."""

"""Answers in words against one or several gold answers: ANLS, exact, substring, relaxed.

anls        1 - edit distance / length, of stripped, lowercased texts with single blanks; below 0.5 it is 0. The paper
            drops 0.5 itself (`ties="drop"`), the evaluators in use keep it (`ties="keep"`, the default)
exact       equal after stripping
substring   DocLLM's: without blanks and " ().,-", lowercased, gold inside the answer: an answer that holds the whole
            page is right, which is why it has a name of its own
relaxed     numbers within 5 %, else equal without case
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from vertebra.errors import ConfigError, DataError
from vertebra.page.metrics.distance import similarity

Ties = Literal["keep", "drop"]
THRESHOLD = 0.5


def anls(answer: str, golds: Sequence[str], *, ties: Ties = "keep") -> float:
    """Of one answer: the best over its gold answers."""
    if ties not in ("keep", "drop"):
        raise ConfigError(f"ties is {ties!r}; expected `keep` (0.5 counts, as in the evaluators) or `drop` (the paper)")
    found = max(similarity(plain(answer), plain(gold)) for gold in required(golds))
    return found if found > THRESHOLD or (found == THRESHOLD and ties == "keep") else 0.0


def exact(answer: str, golds: Sequence[str]) -> float:
    """1 where the stripped answer is one of the stripped gold answers."""
    return float(answer.strip() in {gold.strip() for gold in required(golds)})


def substring(answer: str, golds: Sequence[str]) -> float:
    """1 where a gold answer stands inside the answer, blanks and punctuation aside."""
    return float(any(_bare(gold) in _bare(answer) for gold in required(golds)))


def relaxed(answer: str, golds: Sequence[str]) -> float:
    """1 for a number within 5 % of a gold one (of 0: equal as text), or an equal text."""
    return float(any(_relaxed(answer, gold) for gold in required(golds)))


METRICS: dict[str, Callable[..., float]] = {"anls": anls, "exact": exact, "substring": substring, "relaxed": relaxed}


def mean(metric: Callable[..., float], answers: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    """Over questions."""
    if len(answers) != len(golds) or not answers:
        raise DataError(f"{len(answers)} answers for {len(golds)} questions; expected as many, and at least one")
    return sum(metric(answer, gold) for answer, gold in zip(answers, golds, strict=True)) / len(answers)


def plain(text: str) -> str:
    """Stripped, lowercased, with single blanks."""
    return " ".join(text.strip().lower().split())


def required(golds: Sequence[str]) -> Sequence[str]:
    if isinstance(golds, str) or not golds:
        raise DataError(f"gold answers are {golds!r:.60}; expected a list of at least one text")
    return golds


def _bare(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter not in " ().,\n-")


def _relaxed(answer: str, gold: str) -> bool:
    found, expected = _number(answer), _number(gold)
    if found is not None and expected:
        return abs(found - expected) / abs(expected) <= 0.05
    return answer.strip().lower() == gold.strip().lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("% ")) / 100 if text.strip().endswith("%") else float(text)
    except ValueError:
        return None

"""Other words for the sentences of a set of episodes, from a file: in training each sample is asked in one of them.

    open the drawer: [pull out the drawer, get the drawer open]
    close the drawer: [shut the drawer]

A robot that was only ever asked in one way learns which words tell that sentence from the others, not what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from vertebra.config import read_mapping
from vertebra.errors import ConfigError, UnknownNameError

Wordings = Mapping[str, tuple[str, ...]]
"""Other words for it, by sentence."""


def read_wordings(path: str | Path, sentences: Iterable[str]) -> Wordings:
    """Those of a file, each for one of the `sentences`."""
    known, found = list(sentences), dict[str, tuple[str, ...]]()
    for sentence, others in read_mapping(path).items():
        if sentence not in known:
            raise UnknownNameError(
                "sentence of the set",
                sentence,
                known,
                hint=f"`{path}` has other words for it. For other episodes give a file of theirs (data.options.wordings=FILE), "
                "or none (data.options.wordings=null)",
            )
        if not isinstance(others, list) or not others:
            raise ConfigError(f"`{path}`: `{sentence}` has {others!r:.80}; expected a list of sentences")
        faults = [one for one in others if not isinstance(one, str) or not one.strip()]
        if faults:
            raise ConfigError(
                f"`{path}`: `{sentence}` has {faults[0]!r:.80}; expected a sentence, in quotes if need be"
            )
        _require_distinct(sentence, others, found, path)
        found[sentence] = tuple(others)
    if not found:
        raise ConfigError(f"`{path}` has no sentence; expected lines such as `{known[0]}: [other words, for the same]`")
    return found


def _require_distinct(sentence: str, others: list[str], found: Wordings, path: str | Path) -> None:
    """The same words for two tasks would teach neither."""
    for one in others:
        if others.count(one) > 1 or one == sentence:
            raise ConfigError(f"`{path}`: `{sentence}` has `{one}` twice")
        taken = [other for other, words in found.items() if one in (other, *words)]
        if taken:
            raise ConfigError(f"`{path}`: `{one}` is said to mean `{taken[0]}`, and `{sentence}` as well")

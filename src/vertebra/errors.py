"""Every error a user can cause, as one tree, and the hint that names the nearest valid spelling.

    VertebraError
    ├── ConfigError (ValueError)          a setting, or a combination of settings, that cannot work
    │   └── UnknownNameError              a name in no table; carries the nearest valid ones
    ├── PromptError (ValueError)          a conversation that a prompt format cannot say
    ├── SequenceError (ValueError)        a token sequence, mask or batch that contradicts itself
    │   └── TooLongError                  more positions than the model or the block has
    ├── VocabularyError (ValueError)      tokens, padding, growth of the matrices
    │   └── FingerprintError              the tokenizer is not the one a checkpoint was made with
    ├── BackboneError (RuntimeError)      a model asked for what it cannot do in its present state
    ├── InjectionError (ValueError)       outside embeddings that do not fit their slots
    ├── GenerationError (ValueError)      an option or input that decoding cannot honour
    ├── DataError (ValueError)            rows, files or formats that cannot be read
    ├── SimulationError (RuntimeError)    a simulator, or a process of one, that failed
    ├── TrainingError (RuntimeError)      a run that must stop
    ├── CheckpointError (OSError)         a model folder that is absent, incomplete or damaged
    ├── NetworkError (ConnectionError)    something must be fetched and cannot be
    └── MissingPartError (ImportError)    an optional dependency that is not installed

Each message says what came, what was expected and what to do. Each class also inherits the built-in that a caller
who does not know us would catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VertebraError(Exception):
    """The root: `except VertebraError` catches every mistake that a user can mend."""


class ConfigError(VertebraError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class UnknownNameError(ConfigError):
    """A name in no table."""

    def __init__(self, kind: str, name: object, valid: Iterable[str], *, hint: str = "") -> None:
        names = sorted(valid)
        self.name, self.valid = name, names
        near = did_you_mean(str(name), names)
        text = f"unknown {kind} `{shortened(str(name))}`.{near}"
        if len(names) <= (12 if near else 60):  # whoever is far from all of them needs the list
            text += f" Known: {', '.join(names) or 'none'}."
        super().__init__(f"{text} {hint}".rstrip())


class PromptError(VertebraError, ValueError):
    """A conversation that a prompt format cannot say."""


class SequenceError(VertebraError, ValueError):
    """A token sequence, mask or batch that contradicts itself."""


class TooLongError(SequenceError):
    """More positions than the model or the block has."""


class VocabularyError(VertebraError, ValueError):
    """Tokens, padding, or growth of the matrices."""


class FingerprintError(VocabularyError):
    """The tokenizer is not the one a checkpoint was made with."""


class BackboneError(VertebraError, RuntimeError):
    """A model asked for what it cannot do in its present state."""


class InjectionError(VertebraError, ValueError):
    """Outside embeddings that do not fit their slots."""


class GenerationError(VertebraError, ValueError):
    """An option or input that decoding cannot honour."""


class DataError(VertebraError, ValueError):
    """Rows, files or formats that cannot be read."""


class SimulationError(VertebraError, RuntimeError):
    """A simulator, or a process of one, that failed; the policy in it did not."""


class TrainingError(VertebraError, RuntimeError):
    """A run that must stop."""


class CheckpointError(VertebraError, OSError):
    """A model folder that is absent, incomplete or damaged."""


class NetworkError(VertebraError, ConnectionError):
    """Something must be fetched and cannot be."""


class MissingPartError(VertebraError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, what: str, package: str, extra: str | None = None) -> None:
        install = f"pip install 'vertebra[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{what} needs `{package}`, which is not installed. Install it with: {install}")


def shortened(text: str, most: int = 200) -> str:
    """A text as a message quotes it: one of 5,000 characters would hide the message."""
    return text if len(text) <= most else f"{text[: most // 2]}… ({len(text):,} characters)"


def did_you_mean(name: str, valid: Iterable[str], *, count: int = 3) -> str:
    """` Did you mean …?` with the nearest valid names, or an empty string when none is near."""
    by_lower = {known.lower(): known for known in valid}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.5)
    if not near:
        return ""
    return " Did you mean " + " or ".join(f"`{by_lower[match]}`" for match in near) + "?"

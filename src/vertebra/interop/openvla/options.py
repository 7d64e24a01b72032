"""What no file of an OpenVLA folder says, and whoever loads it may: each with a guess where it is left out.

A guess is never silent: it goes to the log, and into the model's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from vertebra.errors import ConfigError, UnknownNameError

Prompt = Literal["openvla", "v01"]
TEMPLATES: dict[str, str] = {
    "openvla": "In: What action should the robot take to {instruction}?\nOut:",
    "v01": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
        "and polite answers to the user's questions. USER: What action should the robot take to {instruction}? ASSISTANT:"
    ),
}
"""What is asked, by the version of the format."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Facts that training knew and the folder does not hold."""

    chunk: int | None = None
    """Actions that one pass predicts (OFT). None: guessed by the number of dimensions: 8 for 7, 25 for 14."""
    cameras: tuple[str, ...] | None = None
    """Names of the images, in order. None: `image`, and for OFT's with proprio those of its robots."""
    center_crop: bool | None = None
    """Whether images are cut as training cut them. None: where the folder's name has `image_aug`."""
    heads: tuple[int, ...] | None = None
    """Attention heads of each tower, where its timm id is not to be believed."""
    prompt: Prompt | None = None
    """None: `v01` where the folder's name has it, else `openvla`."""
    action_vocabulary: int | None = None
    """The id behind the last action. None: rows of the vocabulary without their padding, as the original reads it."""
    llm: str | None = None
    """For prismatic `.pt` runs: where the language model's config and tokenizer are, in place of its id's hub name."""

    def __post_init__(self) -> None:
        for name, least in (("chunk", 1), ("action_vocabulary", 2)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"{name}={value!r:.40}; expected a whole number, {least} or more")
        if self.prompt is not None and self.prompt not in TEMPLATES:
            raise UnknownNameError("prompt", self.prompt, TEMPLATES)
        for name in ("cameras", "heads"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"`{name}` is a collection; write ({getattr(self, name)!r:.40},)")
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.cameras is not None and (not self.cameras or len(set(self.cameras)) < len(self.cameras)):
            raise ConfigError(f"cameras are {self.cameras}; expected one name or more, each once")


NAMES = tuple(one.name for one in fields(ImportOptions))
"""The names of all options."""


def taken(options: Mapping[str, Any]) -> tuple[ImportOptions, dict[str, Any]]:
    """(the options of an import, those of the backbone) out of what somebody gave."""
    own = {name: value for name, value in options.items() if name in NAMES}
    return ImportOptions(**own), {name: value for name, value in options.items() if name not in NAMES}


def refuse_own(options: Mapping[str, Any], name: object) -> None:
    """Options of an import have no effect on a model that is none of OpenVLA's kin."""
    own = [option for option in options if option in NAMES]
    if own:
        raise ConfigError(
            f"{', '.join(own)}: options of OpenVLA's, OFT's and prismatic's folders, which `{name}` is not; leave them out"
        )


@dataclass
class Guesses:
    """What was guessed while a folder was read, each in a sentence."""

    made: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.made.append(sentence)

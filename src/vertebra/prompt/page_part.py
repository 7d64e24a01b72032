"""A page as a part of a message: the texts of its lines, each on a line, and the slots of their boxes.

    after    Total 9.50▢\\n            before    ▢Total 9.50\\n            none    Total 9.50\\n

    {"type": "page", "lines": [{"text": "Total 9.50", "box": …, "words": ["Total", "9.50"]}], "slot": "after", "first": 0}

`first` is the number of its first line; with it, positions can be followed back to lines and words (`render_traced`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertebra.errors import PromptError, did_you_mean
from vertebra.prompt.content import Content, Splice, Stretch

PLACES = ("after", "before", "none")
"""Where the slot of a line's box stands."""


def page_content(part: Mapping[str, Any], where: str, slot: Splice | None) -> Content:
    """The part as text with splices; `slot` is the slot of one box, None where boxes have none."""
    lines, place, first = part.get("lines"), part.get("slot", "after"), part.get("first")
    if not isinstance(lines, Sequence) or isinstance(lines, str):
        raise PromptError(f"a page of {where} has the lines {lines!r:.80}; expected a list of {{'text', 'box'}}")
    if place not in PLACES:
        near = did_you_mean(str(place), PLACES)
        raise PromptError(f"a page of {where} has the slots {place!r}.{near} Places are {', '.join(PLACES)}.")
    text: list[str] = []
    splices: list[tuple[int, Splice]] = []
    stretches: list[Stretch] = []
    length = 0
    for number, line in enumerate(lines):
        written = line.get("text") if isinstance(line, Mapping) else None
        if not isinstance(written, str) or "\n" in written:
            raise PromptError(
                f"line {number} of a page in {where} is {line!r:.80}; expected {{'text': one line, 'box'}}"
            )
        if slot is not None and place != "none":
            own = slot if first is None else _of_line(slot, first + number)
            splices.append((length + (len(written) if place == "after" else 0), own))
        if first is not None:
            stretches.append(Stretch(length, length + len(written) + 1, first + number))
            stretches += words_of(written, line.get("words"), length, first + number)
        text += [written, "\n"]
        length += len(written) + 1
    if first is None and length:
        stretches = [Stretch(0, length)]
    return Content("".join(text), tuple(splices), tuple(stretches))


def _of_line(slot: Splice, line: int) -> Splice:
    return Splice(slot.role, slot.ids, slot.segment, slot.count, slot.anchored, line)


def words_of(text: str, words: Sequence[str] | None, start: int, line: int) -> Iterator[Stretch]:
    """Where the words of a line stand; those that are not found in their order are passed over."""
    at = 0
    for number, word in enumerate(text.split() if words is None else words):
        found = text.find(word, at) if word else -1
        if found >= 0:
            at = found + len(word)
            yield Stretch(start + found, start + at, line, number)

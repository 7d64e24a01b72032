"""A sequence shown: what the table and the page say, the mask drawn and read back, and bad input."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vertebra.errors import SequenceError
from vertebra.sequence.show import show
from vertebra.sequence.tokens import NO_TARGET, Role, TokenSequence


class Words:
    """Names for ids, as a tokenizer gives them."""

    names = ("<s>", "▁In", " ", "a\nb", "<b>&", "\u200b", "</s>")

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.names[number] if number < len(self.names) else None for number in ids]


def sample(slots: int = 10) -> TokenSequence:
    ids = [0, *[2] * slots, 1, 3, 4, 5, 99, 6]
    slot = [[-1, -1], *([0, index] for index in range(slots)), *[[-1, -1]] * 6]
    role = [Role.TEXT, *[Role.IMAGE] * slots, Role.USER, Role.USER, *[Role.ASSISTANT] * 4]
    weight = [0.0] * (slots + 3) + [1.0, 1.0, 0.5, 1.0]
    return TokenSequence.of(ids, slot=slot, role=role, weight=weight, segments=("image",))


def printed(sequence: TokenSequence, tokenizer: object = None, color: bool = False, **options: object) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=160, force_terminal=color, color_system="standard" if color else None)
    assert sequence.show(tokenizer, console=console, **options) is None
    return stream.getvalue()


class Page(HTMLParser):
    """The cells of the table, the pictures, and whatever would leave the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.outside = re.findall(r"(?:https?:)?//[^\s\"]+|<script|<link|@import", text.replace("data:", ""))
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_the_table_in_a_terminal():
    text = printed(sample(), Words())
    lines = [line.split() for line in text.splitlines()]
    assert ["position", "token", "id", "role", "target", "weight", "slot"] in lines
    assert ["0", "<s>", "0", "text", "="] in lines
    assert ["1", "‹image›", "2", "image", "image", "0"] in lines
    assert ["⋮", "…", "8", "more", "image", "⋮"] in lines
    assert ["10", "‹image›", "2", "image", "image", "9"] in lines
    assert ["12", "a⏎b", "3", "user", "="] in lines
    assert ["14", "\\u200b", "5", "assistant", "=", "1"] in lines
    assert ["15", "#99", "99", "assistant", "=", "0.5"] in lines
    assert "TokenSequence(17 positions, 4 supervised, slots {'image': 10})" in text


def test_colors_and_underlines():
    text = printed(sample(), Words(), color=True)
    assert "\x1b[4;32m</s>" in text  # trained: underlined green
    assert "\x1b[36m▁In" in text
    assert "\x1b[34m‹image›" in text


def test_every_slot_on_request():
    text = printed(sample(), Words(), fold=False)
    assert text.count("‹image›") == 2 * 10  # in the running text and in the table
    assert "more" not in text


def test_columns_only_where_they_say_something():
    ids = [1, 2, 3, 4]
    plain = printed(TokenSequence.of(ids))
    assert "block" not in plain
    assert "document" not in plain
    assert "slot" not in plain.replace("slots", "")
    rich = printed(TokenSequence.of(ids, block=[0, 2, 2, 0], document=[0, 0, 1, 1], type=[0, 1, 1, 1]))
    assert ["position", "token", "id", "role", "target", "block", "type", "document"] in map(
        str.split, rich.splitlines()
    )
    assert ["0", "#3", "3", "text", "=", "2", "1", "1"] in map(str.split, rich.splitlines())


def test_a_masked_target():
    text = printed(TokenSequence.of([1, 2, 3], target=[1, 7, NO_TARGET], weight=[0, 1, 0]))
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "#2", "2", "text", "7", "1"] in rows
    assert ["2", "#3", "3", "text"] in rows
    tokenizer = type("Named", (), {"id_to_token": staticmethod(lambda number: f"t{number}")})()
    named = printed(TokenSequence.of([1, 2, 3], target=[1, 7, NO_TARGET], weight=[0, 1, 0]), tokenizer)
    assert ["1", "t2", "2", "text", "t7", "7", "1"] in [line.split() for line in named.splitlines()]


@pytest.mark.parametrize("method", ["id_to_token", "decode"])
def test_other_tokenizers(method: str):
    answers = {"id_to_token": lambda number: f"t{number}", "decode": lambda numbers: f"t{numbers[0]}"}
    tokenizer = type("Other", (), {method: staticmethod(answers[method])})()
    assert "t3" in printed(TokenSequence.of([3]), tokenizer)


def test_a_tokenizer_that_says_nothing():
    with pytest.raises(SequenceError, match="cannot say what an id means"):
        show(TokenSequence.of([3]), object())


def test_the_page():
    text = sample().show(Words(), html=True)
    assert isinstance(text, str)
    page = Page(text)
    assert page.open == []
    assert page.outside == []
    assert page.rows[0] == ["position", "token", "id", "role", "target", "weight", "slot"]
    assert ["13", "<b>&", "4", "assistant", "=", "1", ""] in page.rows
    assert ["⋮", "… 8 more", "", "", "", "", "image ⋮"] in page.rows
    assert '<td class="left ASSISTANT trained">&lt;/s&gt;</td>' in text
    assert 'title="position 13, id 4, role assistant, target =, weight 1"' in text


@pytest.mark.parametrize("length", [1, 5, 36, 37, 200])
def test_the_mask_drawn(length: int):
    generator = np.random.default_rng(length)
    mask = np.tril(np.ones((length, length), bool)) & (generator.random((length, length)) > 0.3)
    sequence = TokenSequence.of(range(length))
    page = Page(sequence.show(html=True, mask=mask) or "")
    (source,) = page.sources
    picture = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert picture.size == (length, length)
    assert (np.asarray(picture) == np.where(mask, 40, 245)).all()
    drawn = printed(sequence, mask=mask).split("key across\n")[1].splitlines()
    if length <= 36:
        assert [[cell == "■" for cell in row.split()] for row in drawn] == mask.tolist()
    else:
        step = -(-length // 72)
        for at, row in enumerate(drawn):
            rows = mask[at * step : (at + 1) * step]
            seen = [rows[:, start : start + step].any() for start in range(0, length, step)]
            assert [cell != " " for cell in row.ljust(2 * len(seen))[::2]] == seen


@pytest.mark.parametrize("mask", [np.ones((3, 3)), np.ones((2, 3), bool), np.ones(3, bool)])
def test_a_mask_that_is_none(mask: np.ndarray):
    with pytest.raises(SequenceError, match=r"boolean table \[3, 3\]"):
        TokenSequence.of([1, 2, 3]).show(mask=mask)


def test_nothing_to_show():
    assert "0 positions" in printed(TokenSequence.of([]))
    assert "0 positions" in (TokenSequence.of([]).show(html=True, mask=np.zeros((0, 0), bool)) or "")

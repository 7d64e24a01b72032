"""The one frame of all pages for a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from vertebra.webpage import beside, data_url, escaped, webpage


class Read(HTMLParser):
    """What a browser would see: the elements, and what stands in those of a name."""

    def __init__(self) -> None:
        super().__init__()
        self.opened, self.closed, self.texts = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)

    def handle_endtag(self, tag):
        self.closed.append(tag)

    def handle_data(self, data):
        inside = self.opened[-1] if self.opened else ""
        self.texts[inside] = self.texts.get(inside, "") + data


@pytest.mark.parametrize(
    "text", ["plain", "</script><script>alert(1)</script>", "<!--<script>", "a & b < c > \"d\" 'e'", "数"]
)
def test_no_text_becomes_markup(text: str):
    page = webpage(text, f"<h1>{escaped(text)}</h1>", data=("found", {"text": text, text: [text]}))
    read = Read()
    read.feed(page)
    assert read.opened == ["html", "head", "meta", "meta", "title", "style", "body", "main", "h1", "script"]
    assert read.texts["h1"].strip() == text
    assert re.search(r"<title>(.*)</title>", page)[1] == escaped(text)
    inside = re.search(r'<script type="application/json" id="found">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(inside) == {"text": text, text: [text]}
    assert f"<p title='{escaped(text)}'>".count("'") == 2


def test_a_page_is_whole_in_one_file():
    page = webpage("a", "b", style="h3 { color: red; }", script="<script>let a = 1;</script>")
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert page.index("box-sizing") < page.index("h3 { color: red; }") < page.index("</style>")
    assert page.count("<script") == 1


def test_what_stands_beside_a_module_travels_with_the_package():
    assert "--ink" in beside("vertebra", "webpage.css")
    assert data_url(b"abc") == "data:image/png;base64,YWJj"


def test_every_color_has_its_twin_in_the_dark():
    light, dark = re.findall(r":root \{(.*?)\}", beside("vertebra", "webpage.css"), re.DOTALL)
    assert set(re.findall(r"--\w+", light)) == set(re.findall(r"--\w+", dark))

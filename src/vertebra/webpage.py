"""Pages to open in a browser, each whole in one file: no network, no library. One frame and one look for all of them."""

from __future__ import annotations

import base64
import html
import json
from importlib import resources
from typing import Any


def webpage(title: str, body: str, *, style: str = "", data: tuple[str, Any] | None = None, script: str = "") -> str:
    """A page, ready to be written to a file.

    `style`: rules beside those that all pages share. `data`: a name and what is to be found under it, as JSON, by whoever
    reads the page with a program. `script`: whole `<script>` elements.
    """
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escaped(title)}</title>",
        f"<style>\n{beside('vertebra', 'webpage.css')}\n{style}</style>\n</head>\n<body>\n<main>",
        f"{body}\n</main>",
    ]
    if data is not None:
        name, known = data
        # inside of a script element no tag may be spelled
        text = json.dumps(known, ensure_ascii=False).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="{name}">{text}</script>')
    return "\n".join([*parts, *([script] if script else []), "</body>\n</html>\n"])


def escaped(value: object) -> str:
    """A text as HTML shows it, also between quotes."""
    return html.escape(str(value))


def data_url(raw: bytes, kind: str = "image/png") -> str:
    """A picture or a film as what a `src` may name, so that it travels within the page."""
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def beside(package: str, name: str) -> str:
    """The text of a file that stands beside a module: `beside(__package__, "page.css")`."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8").strip()

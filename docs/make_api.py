"""Every public name of the library on one page, from its docstring: `python docs/make_api.py [FILE]`.

A public name is one that `vertebra` or one of its packages offers (`dir(vertebra.data)`). A constant has its docstring
beneath it in the source. A name without one is an error, so that the page has no gaps.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import vertebra

STYLE = """body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif; color: #222 }
code, pre { font: 14px/1.4 monospace; background: #f4f4f4 } pre { padding: .6rem; overflow-x: auto }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc } h3 { font: bold 15px monospace; margin: 2rem 0 .3rem }
.signature { background: none; padding: 0; white-space: pre-wrap; color: #555 } .inside { margin-left: 2rem }"""


def packages() -> list[str]:
    """`vertebra` and its packages that offer names."""
    inside = (f"vertebra.{one.name}" for one in pkgutil.iter_modules(vertebra.__path__) if one.ispkg)
    return ["vertebra", *(name for name in inside if hasattr(importlib.import_module(name), "__all__"))]


def names(package: str) -> list[str]:
    """What a package offers, in its own order, other packages left out."""
    module = importlib.import_module(package)
    return [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]


def docstring(package: str, name: str) -> str:
    """The docstring of a public name; of a constant, the one beneath it."""
    value = getattr(importlib.import_module(package), name)
    found = inspect.getdoc(value) if inspect.isroutine(value) or inspect.isclass(value) else beneath(package, name)
    if not found:
        raise SystemExit(f"{package}.{name} has no docstring")
    return found


def beneath(package: str, name: str) -> str | None:
    """The text that stands beneath a constant in one of the package's files."""
    for path in Path(importlib.import_module(package).__path__[0]).rglob("*.py"):
        for statement, following in pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            if ast.unparse(statement).split(" ")[0].rstrip(":") == name and isinstance(following, ast.Expr):
                return inspect.cleandoc(ast.literal_eval(following.value))
    return None


def signature(value: Any) -> str:
    """The arguments of a function or class; empty where it has none of its own."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception | dict | int)):
        return ""
    made = inspect.signature(value)
    if inspect.isclass(value):
        made = made.replace(return_annotation=inspect.Signature.empty)
    plain = re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", str(made))  # annotations are kept as text
    return re.sub(r"^\((self|cls)(, )?", "(", plain)


def members(value: Any) -> Iterator[tuple[str, str, str]]:
    """(name, signature, docstring) of what a class itself defines for its users."""
    for name, member in vars(value).items() if inspect.isclass(value) else ():
        plain = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
        if not name.startswith("_") and inspect.isroutine(plain) and plain.__doc__:
            called = callable(member) or hasattr(member, "__func__")
            yield name, signature(plain) if called else "", inspect.getdoc(plain) or ""


def prose(text: str) -> str:
    """A docstring as HTML: paragraphs, and indented blocks as they stand."""
    parts = []
    for block in re.split(r"\n\s*\n", html.escape(text, quote=False)):
        if all(line.startswith("    ") for line in block.splitlines()):
            parts.append(f"<pre>{block}</pre>")
        else:
            parts.append("<p>" + re.sub(r"`([^`]+)`", r"<code>\1</code>", block) + "</p>")
    return "\n".join(parts)


def entry(package: str, name: str) -> str:
    """One name: its spelling, its arguments, its docstring, and of a class its members'."""
    value = getattr(importlib.import_module(package), name)
    shown = f'<h3 id="{package}.{name}">{package}.{name}</h3>\n'
    if arguments := signature(value):
        shown += f'<pre class="signature">{html.escape(arguments)}</pre>\n'
    shown += prose(docstring(package, name))
    for inside, arguments, text in members(value):
        shown += f'\n<div class="inside"><code>{inside}{html.escape(arguments)}</code>\n{prose(text)}</div>'
    return shown


def page() -> str:
    body = [f"<h1>vertebra {vertebra.__version__}</h1>\n<p>Every public name, by its one spelling.</p>"]
    for package in packages():
        links = ", ".join(f'<a href="#{package}.{name}">{name}</a>' for name in names(package))
        about = inspect.getdoc(importlib.import_module(package)) or ""
        body += [
            f"<h2>{package}</h2>\n{prose(about)}\n<p>{links}</p>",
            *(entry(package, name) for name in names(package)),
        ]
    head = f'<meta charset="utf-8"><title>vertebra: every public name</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs/api.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")
    print(f"{sum(len(names(package)) for package in packages())} names on {target}")

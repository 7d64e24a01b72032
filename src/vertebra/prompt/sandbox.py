"""A chat template, run within a budget: the same text as transformers' rendering, or a `PromptError`, and soon.

jinja's sandbox keeps a template from the machine, but lets it run for ever and build gigabytes. Here the compiled
template itself counts: each loop, call, filter and operation goes through this environment, which charges it to the
`Budget` of the rendering at hand. Nothing runs beside it, so that nothing is left to kill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from itertools import islice
from types import GeneratorType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from vertebra.errors import PromptError
from vertebra.prompt.budget import Budget, TooCostly
from vertebra.reading import reading

LONGEST = 1_000_000
"""Characters of a template's source."""
_budget: ContextVar[Budget] = ContextVar("budget")
# These walk all that is in a value; others touch its outside.
_DEEP = {"string", "tojson", "pprint", "join", "format", "unique", "sort", "groupby", "dictsort", "min", "max", "sum"}
# Nobody makes links or filler text of a prompt, and they cannot be bounded.
_LEFT_OUT = ("urlize", "xmlattr")


def rendered(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """The template's text for a conversation."""
    text = sum(len(message["content"]) for message in messages)
    token = _budget.set(Budget(messages, text=text))
    try:
        with reading(
            "the tokenizer's chat template cannot be run",
            "mend it, or use a builder of a named format",
            error=PromptError,
            passing=(jinja2.TemplateError, TooCostly),
        ):
            return _compiled(source).render(messages=list(messages), **variables)
    except TooCostly as error:
        raise PromptError(
            f"the tokenizer's chat template is stopped: {error}. Mend it, or use a builder of a named format"
        ) from error
    finally:
        _budget.reset(token)


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > LONGEST:
        raise PromptError(f"the chat template has {len(source):,} characters; expected {LONGEST:,} at the most")
    return _Bounded().from_string(source)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says; its text is what stands in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class _Bounded(ImmutableSandboxedEnvironment):
    """The environment that transformers renders in, with everything counted."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=_finalized
        )
        self.filters["tojson"] = _tojson
        for name in _LEFT_OUT:
            del self.filters[name]
        self.filters = {name: _counted_filter(name, work) for name, work in self.filters.items()}
        tests: Mapping[str, Any] = self.tests
        self.tests = {name: _counted_test(work) for name, work in tests.items()}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _Names}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Counting().visit(super()._parse(source, name, filename))

    # What the transformed template calls, and what the compiler calls by these names.

    def iterated(self, items: Any) -> Any:
        """What a loop runs over, charged before it starts."""
        return _charged(_held(items))

    def weighed(self, value: Any) -> Any:
        return _budget.get().weighed(value)

    def joined(self, *values: Any) -> str:
        """`a ~ b`."""
        budget = _budget.get()
        budget.allow(sum(budget.text(value) for value in values))
        return budget.weighed("".join(map(str, values)))

    def concat(self, pieces: Iterable[str]) -> str:
        """The text of a block, a macro or the whole."""
        budget, kept, length = _budget.get(), [], 0
        for piece in pieces:
            kept.append(piece)
            length += len(piece)
            budget.allow(length)
        budget.spend(len(kept))
        return budget.weighed("".join(kept))

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if type(__obj) is MethodType and __obj.__self__ is self:  # put there by `_Counting`; a template cannot name it
            return __obj(*args)
        budget = _budget.get()
        given = (*args, *kwargs.values())
        budget.spend(1 + sum(map(budget.shallow, given)))
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, (str, bytes, int, float, list, tuple, dict)):
            budget.method(owner, getattr(method, "__name__", ""), given)
        return budget.weighed(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        budget.operation(operator, left, right)
        return budget.weighed(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        _budget.get().spend(1)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        _budget.get().spend(1)
        return super().getitem(obj, argument)


class _Counting(NodeTransformer):
    """Puts a call of the environment around everything in a template that costs and is no call already."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _through("iterated", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _through("joined", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _through("weighed", node) if isinstance(node.arg, nodes.Slice) else node  # a slice is a copy

    def visit_List(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _weighed(node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return _weighed(node) if node.ctx == "load" else node


def _through(name: str, *values: Any) -> nodes.Expr:
    made = nodes.Call(nodes.EnvironmentAttribute(name), list(values), [], None, None)
    made.set_lineno(values[0].lineno)
    return made


def _weighed(node: nodes.Expr) -> nodes.Expr:
    plain = isinstance(node, nodes.Const) or all(isinstance(child, nodes.Const) for child in node.iter_child_nodes())
    return node if plain and isinstance(node, (nodes.Const, nodes.List, nodes.Tuple)) else _through("weighed", node)


def _charged(value: Any) -> Any:
    budget = _budget.get()
    budget.spend(1 + (len(value) if isinstance(value, Sized) else 0))
    return value


def _held(value: Any) -> Any:
    """What a filter or a call yields one by one, as a list of bounded length."""
    if not isinstance(value, GeneratorType):
        return value
    budget = _budget.get()
    return budget.weighed(list(islice(value, budget.steps + 1)))


def _finalized(value: Any) -> Any:
    """What is about to be printed."""
    budget = _budget.get()
    budget.allow(budget.text(value))
    return budget.weighed(value)


def _counted_filter(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is charged for; those that need the context or the environment get it first."""
    first = 1 if hasattr(work, "jinja_pass_arg") else 0

    @wraps(work)
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        values = list(args)
        if len(values) > first and name not in ("first", "map", "select", "reject", "selectattr", "rejectattr"):
            values[first] = _held(values[first])
        given = (*values[first:], *kwargs.values())
        measure = budget.weight if name in _DEEP else budget.shallow
        budget.spend(1 + sum(measure(value) for value in given))
        if name == "join":
            budget.joined(given[1] if len(given) > 1 else "", given[0] if given else "")
        elif name == "tojson":
            budget.allow(budget.weight(given[0]) * sum(_width(width) for width in given[1:]))
        elif given and name not in ("default", "d", "string", "int", "float", "abs"):
            budget.method(str(given[0]) if isinstance(given[0], (int, float)) else given[0], name, given[1:])
        return budget.weighed(work(*values, **kwargs))

    return counted


def _width(value: Any) -> int:
    return value if isinstance(value, int) else len(value) if isinstance(value, str) else 1


def _counted_test(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.spend(1 + sum(budget.shallow(value) for value in args))
        return work(*args, **kwargs)

    return counted


class _Names(Namespace):
    """`namespace()`: it can hold itself, so that it is never spelled out."""

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace takes no name with an underscore in front: {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers writes it: jinja's own escapes what HTML would not take."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: Any) -> None:
    raise jinja2.TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)

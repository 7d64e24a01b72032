"""Every kind of work by its name, and the kind that a recipe's `data` asks for, held against its settings.

A kind is imported when it is named, so that the table costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from vertebra.config import given
from vertebra.config.objects import object_named
from vertebra.data.reading import Reading
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.tasks.config import DataConfig
from vertebra.tasks.task import Task

TASKS: dict[str, type[Task] | str] = {
    "text": "vertebra.tasks.text:PlainText",
    "masked": "vertebra.tasks.masked:MaskedText",
    "chat": "vertebra.tasks.chat:Chat",
    "pairs": "vertebra.tasks.pairs:Pairs",
    "squares": "vertebra.tasks.squares:Reach",
    "orders": "vertebra.tasks.orders:Orders",
    "look": "vertebra.tasks.look:Look",
    "episodes": "vertebra.tasks.episodes:Episodes",
    "pages": "vertebra.tasks.pages:Pages",
}

_EVERY = {"kind", "held_out", "batching", "workers", "limit", "options"}
_READING = {one.name for one in fields(Reading)} | {"eval_path", "eval_split"}


def register_task(task: type[Task]) -> type[Task]:
    """Let recipes name a kind of your own; usable as a decorator. Its name must be new."""
    if not isinstance(task, type) or not issubclass(task, Task):
        raise ConfigError(f"a kind of data is a subclass of `Task`; got {task!r:.80}")
    if task.name in TASKS:
        raise ConfigError(f"a kind `{task.name}` exists already. Kinds: {', '.join(TASKS)}")
    TASKS[task.name] = task
    return task


def task_named(name: str) -> Task:
    """The kind of this name, or of a class named as `package.module:Class`."""
    known = TASKS.get(name)
    if known is None and ":" not in name:
        raise UnknownNameError("kind of data", name, TASKS, hint="One of your own is named as `package.module:Class`.")
    found = known if isinstance(known, type) else object_named(known or name, setting="data.kind", what="Class")
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(f"data.kind `{name}` is no kind of data: expected a subclass of `vertebra.tasks.task.Task`")
    return found()


def task_of(data: DataConfig) -> Task:
    """The kind that a config asks for. A setting that would have no effect is refused, with the kinds that have it."""
    task = task_named(data.kind)
    faults = list(faults_of(task, data))
    if faults:
        raise ConfigError("; ".join(faults))
    return task


def kinds_for(*, is_encoder: bool, format: str | None = None) -> list[str]:
    """The kinds that a model of this sort can learn, and that read this format."""
    tasks = {name: task_named(name) for name in TASKS}
    return [
        name
        for name, task in tasks.items()
        if task.for_encoder == is_encoder and task.reads and (format is None or format in task.reads)
    ]


def faults_of(task: Task, data: DataConfig) -> Iterator[str]:
    """What a kind cannot do with these settings."""
    if task.reads and data.path is None and not data.mix:
        yield f"kind `{data.kind}` needs a path, or a mix of several"
    own = {*_EVERY, *task.settings, *(_READING if task.reads else ())}
    others: dict[tuple[str, ...], list[str]] = {}
    for name in given(data):
        if name not in own:
            others.setdefault(tuple(f"`{kind}`" for kind in TASKS if _has(kind, name)), []).append(name)
    for kinds, names in others.items():
        whose = f"kind {kinds[0]}" if len(kinds) == 1 else f"kinds {', '.join(kinds)}"
        yield f"{', '.join(names)}: of {whose} alone; kind `{data.kind}` has no use for it"
    if "weight" in given(data):
        yield "weight: of a reading inside of `mix`, beside others"
    if data.too_long != "error" and "too_long" in task.settings and not task.packs(data):
        yield "too_long: blocks that are cut from all text are never too long; with data.rows=true rows may be"
    if data.stream and data.held_out and "held_out" in given(data):
        yield "held_out: a stream's samples are not known before; name others for evaluation (eval_path)"
    if data.options:
        try:
            task.options(data)
        except ConfigError as error:
            yield str(error)


def _has(kind: str, setting: str) -> bool:
    task = task_named(kind)
    return setting in task.settings or (bool(task.reads) and setting in _READING)

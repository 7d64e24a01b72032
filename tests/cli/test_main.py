"""The table of commands: light, lazy, helpful about typos; mistakes are one red message and never a traceback."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import typer

from vertebra import __version__
from vertebra.cli import main
from vertebra.cli.main import COMMANDS, Entry
from vertebra.errors import CheckpointError


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_help_lists_every_command_and_imports_none(vertebra):
    assert vertebra("--help").code == 0
    code = (
        "import sys\nfrom vertebra.cli.main import COMMANDS, run\nsys.argv = ['vertebra', '--help']\n"
        "try: run()\nexcept SystemExit: pass\n"
        "print('LOADED', [m for m in sys.modules if m in {e.module for e in COMMANDS.values()}])"
    )
    done = python(code)
    assert "LOADED []" in done.stdout
    for name, entry in COMMANDS.items():
        assert name in done.stdout
        assert entry.does.split(".")[0][:40] in done.stdout


def test_the_help_of_no_command_needs_torch():
    code = (
        "import sys\nfrom vertebra.cli.main import COMMANDS, run\n"
        "for name in COMMANDS:\n"
        "    sys.argv = ['vertebra', name, '--help']\n"
        "    try: run()\n    except SystemExit as left: assert not left.code, name\n"
        "print('LOADED', [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = python(code)
    assert "LOADED []" in done.stdout, done.stderr
    for name in COMMANDS:
        assert f"Usage: vertebra {name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_is_there(name):
    entry = COMMANDS[name]
    assert isinstance(importlib.import_module(entry.module).app, typer.Typer)
    assert entry.does.endswith(".")


def test_no_arguments_show_the_help(vertebra):
    done = vertebra()
    assert done.code == 2
    assert "Usage: vertebra" in done.out + done.err


def test_version(vertebra):
    done = vertebra("--version")
    assert (done.code, done.out.strip()) == (0, f"vertebra {__version__}")


@pytest.mark.parametrize(("typo", "meant"), [("modles", "models"), ("chek", "check"), ("promt", "prompt")])
def test_an_unknown_command_offers_the_nearest(vertebra, typo, meant):
    done = vertebra(typo)
    assert done.code == 2
    assert f"'{typo}'" in done.err
    assert f"'{meant}'" in done.err


def test_an_unknown_option_is_a_matter_of_usage(vertebra):
    done = vertebra("models", "--famly", "opt")
    assert done.code == 2
    assert "--famly" in done.err


def test_our_errors_are_one_message(vertebra, monkeypatch):
    def fail(**options):
        raise CheckpointError("there is no folder `[x]`. Give one")

    monkeypatch.setattr("vertebra.cli.models.model_rows", lambda family: fail())
    done = vertebra("models")
    assert (done.code, done.out, done.err) == (1, "", "error: there is no folder `[x]`. Give one\n")


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("VERTEBRA_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["vertebra", "models", "--family", "opd"])
    with pytest.raises(Exception, match="Did you mean `opt`"):
        main.run()


def test_the_message_is_red_in_a_terminal():
    done = python(
        "import sys\nfrom vertebra.cli.main import run\nsys.argv = ['vertebra', 'models', '--family', 'opd']\nrun()",
        FORCE_COLOR="1",
        COLUMNS="200",
    )
    assert done.returncode == 1
    assert "\x1b[31merror: unknown family `opd`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_may_hold_several_commands(vertebra, monkeypatch, tmp_path):
    (tmp_path / "several.py").write_text(
        "import typer\napp = typer.Typer(help='Two things.')\n"
        "@app.command()\ndef one(name: str): print('one', name)\n"
        "@app.command()\ndef two(): print('two')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "several", Entry("several", "Two things.", "Models"))
    assert vertebra("several", "one", "x").out == "one x\n"
    assert vertebra("several", "two").out == "two\n"
    listed = vertebra("several", "--help").out
    assert "one" in listed
    assert "two" in listed
    assert vertebra("several", "tow").code == 2

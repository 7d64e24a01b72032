"""The logger: quiet until a program shows it, silent on other ranks, and able to say a thing once."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from vertebra import log


@pytest.mark.parametrize(("value", "expected"), [(None, 0), ("", 0), ("0", 0), ("3", 3)])
def test_the_rank_is_torchruns(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: int):
    monkeypatch.delenv("RANK", raising=False)
    if value is not None:
        monkeypatch.setenv("RANK", value)
    assert log.rank() == expected


@pytest.mark.parametrize(("rank", "logged"), [("0", 3), ("1", 0)])
def test_one_rank_speaks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rank: str, logged: int):
    caplog.set_level(logging.INFO, "vertebra")
    monkeypatch.setenv("RANK", rank)
    log.info("a")
    log.warn("b")
    log.warn_once("c")
    log.warn_once("c")
    assert [record.message for record in caplog.records] == ["a", "b", "c"][:logged]


def test_a_thing_is_logged_once_until_it_is_forgotten(caplog: pytest.LogCaptureFixture):
    for _ in range(2):
        log.warn_once("once")
    log.forget_warned()
    log.warn_once("once")
    assert [record.message for record in caplog.records] == ["once"] * 2


def ran(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_library_is_quiet_and_a_program_is_not():
    quiet = ran("from vertebra import log; log.warn('a')")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    shown = ran("from vertebra import log; log.show(); log.show(); log.info('a'); log.warn('b')")
    assert (shown.stdout, shown.stderr) == ("", "a\nb\n")  # plain, and not twice
    warnings = ran("import logging; from vertebra import log; log.show(logging.WARNING); log.info('a'); log.warn('b')")
    assert warnings.stderr == "b\n"


def test_a_stream_that_was_replaced_later_is_written_to():
    code = (
        "import io, sys; from vertebra import log; log.show(); sys.stderr = io.StringIO(); log.warn('a'); "
        "print(sys.stderr.getvalue(), end='')"
    )
    assert ran(code).stdout == "a\n"

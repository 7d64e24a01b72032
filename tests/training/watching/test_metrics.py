"""The metrics of a run as they are read back: whole rows, up to a torn line; damaged ones are named by their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vertebra.errors import CheckpointError
from vertebra.training.watching.metrics import METRICS, MetricsFile, read
from vertebra.training.watching.report import write_report

ROWS = [{"step": step, "loss": 2.0 / step, "tokens": step, "clock": {"seconds": 0.1}} for step in (1, 2, 3)]


def write(folder: Path, *lines: str) -> Path:
    (folder / METRICS).write_text("".join(line + "\n" for line in lines))
    return folder / METRICS


def test_rows_are_read_up_to_a_torn_line_and_cut_back(tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    assert read(write(tmp_path, *lines)) == ROWS
    for torn in ('{"step": 4, "lo', "[" * 100_000, '{"step": ' + "7" * 5000 + "}"):
        assert read(write(tmp_path, *lines, torn, lines[0])) == ROWS
    MetricsFile(tmp_path).cut_back(2)
    assert read(tmp_path / METRICS) == ROWS[:2]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"loss": 1.0}, "its step is None"),
        ({"step": "2"}, "its step is '2'"),
        ({"step": 10**30}, "its step is 1000"),
        ({"step": True}, "its step is True"),
        ([1], "a row is an object, not a list"),
        ({"step": 2, "clock": 3}, "`clock` is 3"),
        ({"step": 2, "eval": None}, "`eval` is None"),
    ],
)
def test_rows_that_no_run_wrote_are_named_by_their_line(tmp_path, row, why):
    path = write(tmp_path, json.dumps(ROWS[0]), json.dumps(row))
    for use in (lambda: read(path), lambda: MetricsFile(tmp_path).cut_back(9), lambda: write_report(tmp_path)):
        with pytest.raises(CheckpointError, match=f"{METRICS}`, line 2: {why}"):
            use()


def test_a_report_of_values_that_cannot_be_drawn_says_so(tmp_path):
    write(tmp_path, *(json.dumps({**row, "loss": "low"}) for row in ROWS))
    with pytest.raises(CheckpointError, match="cannot be drawn"):
        write_report(tmp_path)

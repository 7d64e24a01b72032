"""Streams that are full, closed or of another encoding, and what the system refuses: one message, and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vertebra.cli import terminal
from vertebra.errors import CheckpointError, ConfigError

CLOCK = {"seconds": 1.0, "tokens_per_second": 9.0}
RUN = "from vertebra.cli.main import run; run()"
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line for the shell in which `vertebra` stands for the console script."""
    script = f'vertebra() {{ "{sys.executable}" -c "{RUN}" "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, env={**os.environ, **environment}, check=False)


@FULL
@pytest.mark.parametrize("command", ["models --family opt", "models --json", "--help", "tiny --list"])
def test_a_full_disk_behind_standard_output(command: str):
    done = shell(f"vertebra {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "error: the output is not whole: No space left on device; make room, or name another place\n"
    )


@FULL
def test_a_full_disk_behind_standard_error():
    done = shell("vertebra models --family nope 2> /dev/full")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_streams(closed: str, tmp_path: Path):
    """The number of a closed stream is given to the next file; nothing printed may land in it."""
    rows = [{"step": step, "loss": 2.0, "lr": 0.1, "tokens": 9, "grad_norm": 1.0, "clock": CLOCK} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = shell(f"vertebra report {tmp_path} {closed}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    assert shell(f"vertebra models --family nope {closed}").returncode == 1


def test_a_model_written_without_any_stream(tmp_path: Path):
    made = tmp_path / "made"
    done = shell(f"vertebra tiny --family llama2 {made} >&- 2>&- <&-")
    assert done.returncode == 0
    assert json.loads((made / "config.json").read_text())["model_type"] == "llama"


def test_a_reader_that_leaves():
    done = shell("set -o pipefail; vertebra models --json | head -c 10; exit ${PIPESTATUS[0]}")
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_terminals_of_other_encodings(environment: dict[str, str]):
    """Commands whose messages and pages hold more than such a terminal can show, one after the other."""
    code = (
        "import sys\nfrom vertebra.cli.main import run\n"
        "family = 'a\\u2192\\xe9\\U0001f600'\n"
        "for line in (['models', '--family', family], ['info', '\\udcff'], ['plan', 'a\\nb'], ['train', '--help']):\n"
        "    sys.argv = ['vertebra', *line]\n"
        "    try: run()\n    except SystemExit as left: sys.stderr.write(f'[{left.code or 0}]')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **environment}, check=False
    )
    assert b"Traceback" not in done.stderr
    assert [done.stderr.count(part) for part in (b"[1]", b"[0]", b"error: ")] == [3, 1, 3]


def test_what_an_encoding_lacks_is_written_in_words_or_as_its_escape():
    code = (
        "import sys; from vertebra.cli import terminal; terminal.prepare()\n"
        "print('1 → 2, ≤ 3 × 4 … é 😀 \\udcff ▁In'); sys.stderr.write('→é')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True
    )
    assert done.stdout.decode().strip() == "1 -> 2, <= 3 x 4 ... \\xe9 \\U0001f600 \\udcff _In"
    assert done.stderr == b"->\\xe9"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_stays_json(encoding: str):
    code = (
        "from vertebra.cli import terminal; from vertebra.cli.output import print_json; terminal.prepare()\n"
        "print_json({'text': '→ é 😀 ▁In \\udcff'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True
    )
    assert json.loads(done.stdout.decode(encoding)) == {"text": "→ é 😀 ▁In \udcff"}


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, 0x7FFF])
def test_what_the_system_refuses_is_ours(number: int):
    with pytest.raises(ConfigError) as caught, terminal.system_errors_as_ours():
        raise OSError(number, os.strerror(number), "a" * 5000)
    assert os.strerror(number) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_errors_that_are_ours_or_a_library_s_stay():
    with pytest.raises(CheckpointError, match="there"), terminal.system_errors_as_ours():
        raise CheckpointError("there is no folder")
    with pytest.raises(OSError, match="library") as caught, terminal.system_errors_as_ours():
        raise OSError("a library's own")
    assert type(caught.value) is OSError

"""Engines on pictures drawn here, upright and turned; engines that are absent, crash, or take too long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.page.pdf.made import Text, pdf
from vertebra.errors import DataError, MissingPartError, UnknownNameError, VertebraError
from vertebra.page import Box, Line, Page, Word, engine, read_document, read_picture
from vertebra.page.ocr import engines
from vertebra.page.pictures import MOST_PIXELS

WORDS = ["RECEIPT NUMBER 4711", "Orange juice 3.20", "Brown bread 2.80", "Total amount 6.00", "Thank you for coming"]
needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="the tesseract program is not installed")


def picture() -> Image.Image:
    made = Image.new("RGB", (700, 500), "white")
    pen = ImageDraw.Draw(made)
    for number, text in enumerate(WORDS):
        pen.text((60, 50 + 80 * number), text, fill="black", font=ImageFont.load_default(36))
    return made


class Counting:
    """An engine of one's own."""

    name = "counting"

    def __init__(self, wait: float = 0, fail: bool = False) -> None:
        self.wait, self.fail, self.pages = wait, fail, 0

    def read(self, image) -> Page:
        time.sleep(self.wait)
        if self.fail:
            raise RuntimeError("no luck")
        self.pages += 1
        return Page.of([Line("read", (0, 0, image.width / 2, image.height))], size=image.size)


@needs_tesseract
@pytest.mark.parametrize("angle", [0, 90])
def test_tesseract_reads_and_turns(angle: int):
    page = read_picture(picture().rotate(-angle, expand=True), engine("tesseract"))
    assert [line.text for line in page.lines if line.text in WORDS] == WORDS
    assert page.size == (700, 500)
    assert page.facts.get("turned", 0) == (-angle) % 360
    assert page.lines[0].box.left == pytest.approx(60, abs=8)
    assert page.lines[0].words[0].confidence > 0.5


@pytest.mark.parametrize("angle", [90, 180])
def test_rapidocr_reads_and_turns(angle: int):
    """A rotated scan: its turn is found and undone, and the words stand where they stand on the upright page."""
    pytest.importorskip("rapidocr", reason="rapidocr is not installed (vertebra[ocr])")
    page = read_picture(picture().rotate(-angle, expand=True), engine("rapidocr"))
    assert [line.text for line in page.lines] == WORDS
    assert page.facts.get("turned", 0) == (-angle) % 360
    assert page.image.size == (700, 500)
    assert page.lines[0].box.left == pytest.approx(60, abs=8)
    assert page.lines[0].words


def test_ocr_only_where_the_text_layer_is_none(tmp_path: Path):
    path = pdf(tmp_path / "a.pdf", [[Text("Total 9.50")], [], [Text("*#@! %&")]])
    by = Counting()
    found = read_document(path, ocr=by)
    assert [page.text for page in found] == ["Total 9.50", "read", "read"]
    assert found.pages[1].notes[0] == "read by counting: it has no text layer"
    assert "garbage" in found.pages[2].notes[0]
    assert found.pages[1].size == (612, 792)
    assert found.pages[1].lines[0].box == pytest.approx((0, 0, 306, 792), abs=0.5)
    assert by.pages == 2
    assert [page.text for page in read_document(path, [1], ocr=by, when="always")] == ["read"]
    assert read_document(path, [2], when="never").pages[0].notes == ("it has no text layer, and OCR is off",)


def test_an_engine_that_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError, match=r"pip install 'vertebra\[ocr\]'"):
        engine()
    with pytest.raises(VertebraError, match="apt-get install tesseract-ocr"):
        read_picture(picture(), engine("tesseract"))
    path = pdf(tmp_path / "a.pdf", [[]])
    assert "no OCR is installed" in read_document(path).pages[0].notes[0]
    with pytest.raises(UnknownNameError, match="tesseract"):
        engine("teseract")


def test_an_engine_that_crashes_or_takes_too_long(tmp_path: Path):
    with pytest.raises(DataError, match=r"counting failed \(RuntimeError: no luck\)"):
        read_picture(picture(), Counting(fail=True))
    with pytest.raises(DataError, match=r"700 × 500 within 0.05 s"):
        read_picture(picture(), Counting(wait=0.3), seconds=0.05)


class Apart:
    """An engine in a process of its own that does what its name says."""

    def __init__(self, name: str = "apart", log: str = "") -> None:
        self.name, self.log = name, log
        self.apart = (__name__, "Apart", {"name": name, "log": log})

    def read(self, image) -> Page:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()}\n")
        print("what it prints is no answer")
        if self.name == "hangs":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
            Path(self.log).with_suffix(".child").write_text(str(child.pid))
            time.sleep(99)
        if self.name == "crashes":
            os.abort()
        if self.name == "fails":
            raise RuntimeError("no luck")
        if self.name == "refuses":
            raise DataError("a sentence of its own")
        word = Word("read", Box(1, 2, 30, 40), confidence=0.5)
        lines = [Line("read", Box(1, 2, 30, 40), words=(word,), label="x")]
        return Page.of(lines, size=image.size, facts={"turned": 90}, notes=("a note",))


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_process_of_its_own(tmp_path: Path):
    by = Apart(log=str(tmp_path / "log"))
    here = by.read(picture())
    first = read_picture(picture(), by)
    assert first == here
    assert first.notes == ("a note",)
    assert first.image.size == (500, 700)
    read_picture(picture().convert("L"), by)
    pids = (tmp_path / "log").read_text().split()
    assert pids[0] == str(os.getpid())
    assert pids[1] == pids[2] != pids[0]  # one process serves them all


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path):
    by = Apart("hangs", log=str(tmp_path / "log"))
    with pytest.raises(DataError, match=r"hangs has not read a picture of 700 × 500 within 4 s"):
        read_picture(picture(), by, seconds=4)
    assert gone(int((tmp_path / "log").read_text()))
    assert gone(int((tmp_path / "log.child").read_text()))


def test_one_that_crashes_takes_nobody_with_it(tmp_path: Path):
    for _ in range(2):  # the next picture starts another process
        with pytest.raises(DataError, match=r"crashes failed \(a crash: its process ended with exit code -?\d+\)"):
            read_picture(picture(), Apart("crashes", log=str(tmp_path / "log")))
    for _ in range(2):
        with pytest.raises(DataError, match=r"fails failed \(RuntimeError: no luck\); try another engine"):
            read_picture(picture(), Apart("fails", log=str(tmp_path / "log")))
    with pytest.raises(DataError, match=r"^a sentence of its own$"):
        read_picture(picture(), Apart("refuses", log=str(tmp_path / "log")))
    pids = (tmp_path / "log").read_text().split()
    assert len(set(pids)) == 4  # two crashed; a failure is an answer


@needs_tesseract
def test_a_program_that_crashes_or_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(DataError, match="tesseract has not read"):
        read_picture(picture(), engine("tesseract", seconds=0.001, orient=False))
    with pytest.raises(DataError, match=r"exit code 1.*xxx"):
        read_picture(picture(), engine("tesseract", languages="xxx", orient=False))


def test_pictures_that_are_none_or_too_large(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match="no picture"):
        read_document(tmp_path / "a.png", ocr=Counting())
    side = int(MOST_PIXELS**0.5) + 10
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="pixels, and 80,000,000 are read"):
        read_document(tmp_path / "bomb.png", ocr=Counting())
    picture().save(tmp_path / "b.png")
    with pytest.raises(DataError, match="without OCR it has no text"):
        read_document(tmp_path / "b.png", when="never")
    assert read_document(tmp_path / "b.png", ocr=Counting()).pages[0].text == "read"

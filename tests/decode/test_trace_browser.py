"""The page in a real browser: it opens without a network, a click shows a step, and a picture of it is kept.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.model.models import batch_of, page_row, shared
from vertebra.decode.tracing.html import trace_page
from vertebra.decode.tracing.trace import trace

pytestmark = pytest.mark.browser
_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """A headless Chromium, spoken to over a pipe: a JSON message each way, a zero byte after it."""

    def __init__(self, profile: Path) -> None:
        program = next((found for name in _NAMES if (found := shutil.which(name))), None)
        assert program is not None, "no Chromium found; install it: apt-get install chromium"
        (read_in, self._write), (self._read, write_out) = os.pipe(), os.pipe()

        def as_the_browser_wants_them() -> None:
            os.dup2(read_in, 3)
            os.dup2(write_out, 4)

        options = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--window-size=1200,1400",
        )
        self._process = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=as_the_browser_wants_them,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        self._number, self._rest = 0, b""
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **words):
        self._number += 1
        message = {"id": self._number, "method": method, "params": words}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 16)
            assert more, "the browser went away"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def run(self, script: str):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self._session = None
        self.ask("Browser.close")
        self._process.wait(20)


def test_a_click_shows_a_step(tmp_path):
    model = shared(inference_mode=True, weights=True)
    told = trace(model, batch_of(model, [page_row(0)]), max_new_tokens=8, temperature=0.9, top_p=0.9, seed=4)
    file = tmp_path / "trace.html"
    file.write_text(trace_page(told), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        browser.ask("Network.enable")
        browser.ask(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        browser.ask("Page.navigate", url=file.as_uri())
        browser.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        shown = "[...document.querySelectorAll('section.step')].filter(one => one.offsetParent).map(one => one.id)"
        assert browser.run(shown) == ["step-0"]
        browser.run("document.querySelectorAll('button.token')[3].click()")
        assert browser.run(shown) == ["step-3"]
        assert "Decode: one column goes in" in browser.run("document.querySelector('#step-3').innerText")
        browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
        assert browser.run(shown) == ["step-2"]
        assert browser.run("performance.getEntriesByType('resource').length") == 0
        browser.run("document.querySelectorAll('button.token')[0].click()")
        picture = base64.b64decode(browser.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])
    finally:
        browser.close()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    kept = Path(os.environ.get("VERTEBRA_SCREENSHOTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "trace.png").write_bytes(picture)

"""A real browser for tests of pages. Needs an installed Chromium (`apt-get install chromium`)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

    def require_whole(self, name: str, folder: Path) -> None:
        """The page asks for nothing, fits, and is dark where its reader is; a picture of both is kept."""
        loaded = "performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length"
        assert self.run(loaded) == 0
        assert self.run("document.documentElement.scrollWidth <= innerWidth")
        for theme, ground in (("light", "rgb(244, 246, 249)"), ("dark", "rgb(18, 22, 29)")):
            self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            assert self.run("getComputedStyle(document.body).backgroundColor") == ground
            self.keep_picture(f"{name}-{theme}.png", folder)

    def keep_picture(self, name: str, folder: Path) -> None:
        """Keep what is shown, where `make test-browser` wants it or in `folder`."""
        picture = base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        kept = Path(os.environ.get("VERTEBRA_SCREENSHOTS", folder))
        kept.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(picture)


@contextmanager
def opened(file: Path, profile: Path) -> Iterator[Browser]:
    """A page, opened without a network."""
    browser = Browser(profile)
    try:
        browser.ask("Network.enable")
        browser.ask(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        browser.ask("Page.navigate", url=file.as_uri())
        browser.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        yield browser
    finally:
        browser.close()

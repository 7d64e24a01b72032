"""The live page in a real browser: images, actions, latency and the queue of a server that is asked; a picture is kept.

Needs an installed Chromium (`apt-get install chromium`) and is run by `make test-browser`.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.policies.models import image
from tests.serve.serving import TASK, policy
from vertebra.client import connect
from vertebra.serve import Server, ServeSettings

pytestmark = pytest.mark.browser


def test_the_page_shows_what_the_server_does(tmp_path):
    with (
        Server(policy(cameras=("image", "wrist")), ServeSettings(port=0)) as server,
        connect(server.url.replace("http", "ws")) as client,
    ):
        for step in range(12):
            client.act({"images": {"image": image(step), "wrist": image(step + 50)}}, TASK)
        browser = Browser(tmp_path / "profile")
        try:
            browser.ask("Page.navigate", url=server.url + "/")
            browser.run(
                "new Promise(done => { const look = () => document.querySelectorAll('#images img').length == 2 && "
                "document.querySelectorAll('#actions polyline').length == 3 ? done() : setTimeout(look, 50); look(); })"
            )
            assert browser.run("document.querySelector('#state').textContent") == "ready"
            assert browser.run("document.querySelector('#requests').textContent") == "12"
            assert browser.run("document.querySelector('#websockets').textContent") == "1"
            assert browser.run("document.querySelector('#images img').naturalWidth") == 28
            assert browser.run("document.querySelectorAll('#latency polyline').length") == 1
            others = (
                "performance.getEntriesByType('resource').filter(one => !one.name.startsWith(location.origin)).length"
            )
            assert browser.run(others) == 0
            picture = base64.b64decode(browser.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        finally:
            browser.close()
    kept = Path(os.environ.get("VERTEBRA_SCREENSHOTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "live.png").write_bytes(picture)

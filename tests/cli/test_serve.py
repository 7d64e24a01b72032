"""`vertebra serve` as a process, from its start to SIGTERM under load; and wrong options, named before anything loads."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.policies.models import image, policy_model
from tests.serve.serving import TASK, asked
from vertebra.client import connect
from vertebra.errors import NetworkError

BODY = {"images": {"image": image(0)}, "instruction": TASK, "unnorm_key": "bridge"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("serve") / "policy"
    policy_model(chunk=2).save(place)
    return place


@pytest.fixture
def started(folder, tmp_path):
    """(process, address, its log so far) of a server that is ready; it is killed at the end, if it is still there."""
    log = tmp_path / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from vertebra.cli.main import run; run()", "serve", str(folder), "--port", "0"],
            stdout=subprocess.PIPE, stderr=file, env={**os.environ, "VERTEBRA_SERVE_TOKEN": "secret"}, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        output = process.stdout.readline()
        found = re.search(r"on (http://[\d.:]+)", output)
        assert found, (output, log.read_text())
        for _ in range(1200):
            try:
                status, answer, _ = asked(found[1] + "/ready")
            except OSError:  # it does not listen yet
                status = 0
            if status == 200:
                break
            assert status in (0, 503), answer
            time.sleep(0.05)
        yield process, found[1], lambda: [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_sigterm_under_load_loses_nothing_that_was_accepted(started):
    process, url, log = started
    secret = {"Authorization": "Bearer secret"}
    assert asked(url + "/act", BODY)[0] == 401
    status, first, _ = asked(url + "/act", BODY, headers=secret)
    assert (status, np.asarray(first["actions"]).shape) == (200, (2, 3))
    got, lock, going = Counter[str](), threading.Lock(), threading.Event()

    def work(scheme: str) -> None:
        """Ask until the server is gone; what was refused, or never taken, is no answer."""
        client = connect(url.replace("http", scheme), token="secret", patience=0)
        try:
            while True:
                made = client.act(BODY["images"]["image"], TASK, "bridge")
                with lock:
                    got[scheme if np.allclose(made, first["actions"], atol=1e-5) else "wrong"] += 1
                    if sum(got.values()) > 40:
                        going.set()
        except NetworkError:
            pass
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(scheme,)) for scheme in ("http", "ws") * 4]
    for thread in threads:
        thread.start()
    assert going.wait(60)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.wait(60) == 0
    entries = log()
    answered = Counter(
        {
            "http": sum(one["event"] == "request" and one["status"] == 200 for one in entries) - 1,
            "ws": sum(one["event"] == "message" and one["status"] == "ok" for one in entries),
        }
    )
    assert answered == got, "what the server answered is what its clients got"
    assert [one["unanswered"] for one in entries if one["event"] == "drained"] == [0]
    assert [one["event"] for one in entries if one["event"] in ("ready", "draining", "drained")] == [
        "ready", "draining", "drained",
    ]  # fmt: skip
    assert {one["status"] for one in entries if one["event"] == "request"} <= {200, 401, 503}
    assert TASK not in json.dumps(entries)


def test_a_port_that_is_taken(vertebra, folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = vertebra("serve", str(folder), "--port", port)
    assert done.code == 1
    assert f"127.0.0.1:{port} cannot be served on" in done.err
    assert "another server has the port" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--host 203.0.113.9", "expected an address of this machine"),
        (f"--host {'ü' * 70}", "no name of a host"),
        ("--host=", "host is empty"),
        ("--port 70000", "at most 65535"),
        ("--port -1", "at least 0"),
        ("--token=", "the token is empty"),
        ("--token ü", "the token is empty, begins"),
        ("--max-batch 0", "1 or more"),
        ("--time-limit nan", "time_limit"),
        ("--camera front", "expected THEIRS=OURS"),
        ("--missing guess", "Did you mean|refuse"),
        ("--execute 0", "execute"),
    ],
)
def test_options_that_are_wrong(vertebra, options, words):
    done = vertebra("serve", "tiny-llama2", *options.split())
    assert done.code in (1, 2)
    assert re.search(words, " ".join(done.err.split())), done.err


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("tiny-lama2", "", "Did you mean `tiny-llama2`"),
        ("/none/such", "", "there is no folder"),
        ("tiny-llama2", "--execute 2", "are about policies, and this is a language model"),
        ("tiny-llama2", "--camera a=image", "answers in words"),
        ("FOLDER", "--camera a=wrist", "no camera `wrist`; its cameras are image"),
        ("FOLDER", "--execute 9", "chunk"),
        ("FOLDER", "--base tiny-llama2", "a model of its own"),
    ],
)
def test_a_model_that_cannot_be_served_so(vertebra, folder, model, options, words):
    done = vertebra("serve", str(folder) if model == "FOLDER" else model, "--port", "0", *options.split())
    assert done.code in (1, 2)
    assert words in " ".join(done.err.replace("│", " ").split()), done.err


def test_an_open_server_without_a_token_is_warned_of(vertebra, folder, caplog):
    with caplog.at_level("WARNING", logger="vertebra"):
        vertebra("serve", str(folder), "--port", "0", "--host", "0.0.0.0", "--execute", "9")
    assert "everybody who reaches 0.0.0.0" in caplog.text


def test_two_that_took_one_port_at_once(folder):
    """Both could take it, for neither listened yet: the second one ends with words."""
    from vertebra import policy as load_policy
    from vertebra.errors import ConfigError
    from vertebra.serve import Server, ServeSettings
    from vertebra.serve.server import bind

    made = load_policy(folder)
    first = bind(ServeSettings(port=0))
    settings = ServeSettings(port=first.getsockname()[1])
    second = bind(settings)
    with (
        Server(made, settings, bound=first),
        pytest.raises(ConfigError, match="another server has the port"),
        Server(made, settings, bound=second),
    ):
        pass


def test_help(vertebra):
    done = vertebra("serve", "--help")
    assert done.code == 0
    for option in ("--host", "--port", "--token", "--max-batch", "--drain", "--camera"):
        assert option in done.out

"""Hub names over real requests: a server of this test's own answers as the hub does, and nothing is in the cache.

Each case runs in a process of its own, since the library reads the endpoint and the cache's place once.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import write_tiny
from vertebra.backbone.vocabulary import grow_vocabulary

_ROWS = """
import torch
from vertebra import load_backbone
for mode in ({}, {"inference_mode": True, "weights": True}):
    backbone = load_backbone("someone/model", dtype="float32", **mode).eval()
    with torch.no_grad():
        logits = backbone(torch.tensor([[1, 5, 6, 7]])).logits
    print(backbone.family.name, len(backbone.growths), logits.double().sum().item())
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """`/someone/model/resolve/main/FILE` from `folder`; one repository fails, whatever is asked of it."""

    folder: Path

    def do_GET(self) -> None:
        if self.path.startswith("/broken"):
            self._answer(403, {})  # a 500 would be tried again and again
            return
        file = self.folder / self.path.rpartition("/")[2]
        if "/resolve/" not in self.path or not file.is_file():
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        data = file.read_bytes()
        etag = hashlib.sha1(data).hexdigest()
        self._answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": "c" * 40}, data)

    do_HEAD = do_GET

    def _answer(self, code: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ask(tmp_path) -> Iterator:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }

    def run(code: str, folder: Path) -> list[str]:
        Hub.folder = folder
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert not done.returncode, done.stderr[-2000:]
        return done.stdout.strip().splitlines()

    yield run
    server.shutdown()
    server.server_close()


def in_shards(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, model / f"part{number}.safetensors", {"format": "pt"})
        weight_map.update(dict.fromkeys(part, f"part{number}.safetensors"))
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (model / "model.safetensors").unlink()


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "shards"])
def test_weights_of_a_hub_name_are_fetched_in_both_modes(ask, tmp_path, sharded):
    model = write_tiny("tiny-llama2", tmp_path / "model")
    with torch.no_grad():
        expected = (
            load_backbone(model, dtype="float32").eval()(torch.tensor([[1, 5, 6, 7]])).logits.double().sum().item()
        )
    if sharded:
        in_shards(model)
    inference_first = _ROWS.replace(
        '({}, {"inference_mode": True, "weights": True})', '({"inference_mode": True, "weights": True}, {})'
    )
    for line in ask(inference_first, model):
        family, growths, total = line.split()
        assert (family, growths) == ("llama2", "1")
        assert float(total) == pytest.approx(expected)


def test_a_folder_of_ours_on_the_hub_keeps_its_record(ask, tmp_path):
    backbone = load_backbone("tiny-opt", dtype="float32").eval()  # its matrices have spare rows
    grow_vocabulary(backbone, ["<ACT>", "<GO>"])
    backbone.save(tmp_path / "saved")
    with torch.no_grad():
        expected = backbone(torch.tensor([[1, 5, 6, 7]])).logits.double().sum().item()
    undone = "\nfrom vertebra.backbone.vocabulary import undo_growth\nundo_growth(backbone); print('undone')"
    *lines, last = ask(_ROWS + undone, tmp_path / "saved")
    assert [line.split()[:2] for line in lines] == [["opt", "1"], ["opt", "1"]]
    assert all(float(line.split()[2]) == pytest.approx(expected) for line in lines)
    assert last == "undone"


def test_a_hub_that_fails_and_a_repository_without_weights(ask, tmp_path):
    model = write_tiny("tiny-llama2", tmp_path / "model")
    (model / "model.safetensors").unlink()
    code = (
        "from vertebra import load_backbone\nfrom vertebra.errors import VertebraError\n"
        "for name, mode in (('someone/model', {}), ('someone/model', {'inference_mode': True, 'weights': True}),\n"
        "                   ('broken/model', {})):\n"
        "    try: load_backbone(name, **mode)\n"
        "    except VertebraError as error: print(type(error).__name__, ' '.join(str(error).split()))\n"
    )
    training, inference, broken = ask(code, model)
    assert training.startswith("CheckpointError")
    assert "someone/model" in training
    assert "on the hub has no weights" in inference
    assert broken.startswith("NetworkError")

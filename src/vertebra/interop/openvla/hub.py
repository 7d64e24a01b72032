"""Where the files of a model of OpenVLA's kin are: in the folder that was named, or fetched from the hub.

Of a repository only what holds data is fetched, and none of the code that may lie in it.
"""

from __future__ import annotations

from pathlib import Path

from vertebra.backbone.registry import row_of
from vertebra.backbone.source import OPENVLA_TYPES, fetch, left_by_run, looks_like_a_path
from vertebra.errors import CheckpointError, NetworkError
from vertebra.interop.openvla.folder import CONFIG, kind_of
from vertebra.reading import read_json

PATTERNS = ("*.json", "*.model", "*.txt", "*.safetensors", "*_checkpoint.pt", "lora_adapter/*")


def openvla_folder(name: str | Path, *, token: str | None = None) -> Path | None:
    """The folder of a model of OpenVLA's kin; None for every other name."""
    text = str(name)
    if row_of(text) is not None:
        return None
    place = Path(text).expanduser()
    try:
        here = place.exists()
    except OSError:  # a name too long for a path: whoever loads it says so
        return None
    if here or kind_of(place) == "prismatic":  # the latter: a checkpoint that a run does not have, which is then named
        return place if left_by_run(name) == name and kind_of(place) is not None else None
    if looks_like_a_path(text) or text.count("/") != 1:
        return None
    return _fetched(text, token)


def _fetched(repo: str, token: str | None) -> Path | None:
    """A snapshot of a repository whose config says that it is one of these."""
    from huggingface_hub import errors, snapshot_download

    try:
        config = fetch(repo, CONFIG, token=token)
    except (CheckpointError, NetworkError):  # whoever loads the name says why
        return None
    if read_json(config).get("model_type") not in OPENVLA_TYPES:
        return None
    try:
        return Path(snapshot_download(repo, allow_patterns=list(PATTERNS), token=token))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise NetworkError(f"the files of `{repo}` cannot be fetched ({error}); give a local folder of them") from error

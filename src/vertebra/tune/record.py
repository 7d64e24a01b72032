"""What an adapter's folder says of itself, be it ours or PEFT's own: its roots, its base, its tokens. No weight is read.

ours     vertebra.json with an `adapter` in it, and lora_adapter/, lora_adapter.<part>/
PEFT's   adapter_config.json and adapter_model.safetensors: the adapter alone, for a language model
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.backbone.registry import row_of
from vertebra.backbone.source import RECORD, left_by_run, read_json
from vertebra.errors import CheckpointError
from vertebra.reading import as_object
from vertebra.tune.folder import CONFIG, absent_files, digest
from vertebra.tune.lora import LANGUAGE

FOLDER = "lora_adapter"


@dataclass(frozen=True, kw_only=True)
class AdapterFolder:
    """An adapter's folder, whose files are all there."""

    folder: Path
    roots: dict[str, Path]
    """Which PEFT folder goes to which root."""
    about: dict[str, Any] = field(default_factory=dict)
    """Our record; empty for a folder that PEFT wrote itself."""

    @property
    def adapter(self) -> dict[str, Any]:
        """What our record says of the adapter."""
        return self.about.get("adapter", {})

    @property
    def digest(self) -> str:
        """A hash of its tensors: how a merged model remembers what was merged into it."""
        return digest(sorted(self.roots.values()))


def folder_of(root: str) -> str:
    return FOLDER if root == LANGUAGE else f"{FOLDER}.{root}"


def is_adapter_folder(folder: str | Path) -> bool:
    """Whether this is an adapter and no model of its own."""
    folder = Path(folder).expanduser()
    if (folder / "config.json").is_file():
        return False
    record = folder / RECORD
    return (folder / CONFIG).is_file() or (record.is_file() and "adapter" in read_json(record))


def read_adapter(folder: str | Path) -> AdapterFolder:
    """An adapter's folder, or that of the run which left it; one clear message where it is none, or where files are missing."""
    folder = Path(left_by_run(folder)).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"`{folder}` is no folder; expected one with `{FOLDER}/` or PEFT's {CONFIG} in it")
    if (folder / RECORD).is_file():
        return _ours(folder)
    if (folder / CONFIG).is_file():
        return _of_peft(folder)
    inside = folder / FOLDER
    if (inside / CONFIG).is_file():
        raise CheckpointError(
            f"`{folder}` is no adapter of ours: {RECORD} missing. Its `{FOLDER}/` is a PEFT folder: give `{inside}`"
        )
    raise CheckpointError(f"`{folder}` is no adapter: neither {RECORD} with `{FOLDER}/`, nor PEFT's {CONFIG} is there")


def _ours(folder: Path) -> AdapterFolder:
    about = read_json(folder / RECORD)
    if "adapter" not in about:
        raise CheckpointError(f"`{folder / RECORD}` describes no adapter; `{folder}` is a whole model, not an adapter")
    _require_form(about, folder / RECORD)
    roots = {root: folder / folder_of(root) for root in about["adapter"]["roots"]}
    absent = [f"{path.name}/{file}" for path in roots.values() for file in absent_files(path)]
    if absent:
        raise CheckpointError(f"`{folder}` is no whole adapter: {', '.join(absent)} missing. Copy or save it again")
    others = sorted(path.name for path in folder.glob(f"{FOLDER}*") if path.is_dir() and path not in roots.values())
    if others:
        raise CheckpointError(
            f"`{folder}` holds {', '.join(others)}, which its {RECORD} does not list (it lists "
            f"{', '.join(path.name for path in roots.values())}). Take them out, or save the adapter again"
        )
    return AdapterFolder(folder=folder, roots=roots, about=about)


def _require_form(about: dict[str, Any], file: Path) -> None:
    """A damaged record is one message, and names no file outside its folder."""
    adapter = as_object(about["adapter"], f"`adapter` of `{file}`")
    as_object(about.get("record", {}), f"`record` of `{file}`")
    for kind in ("parts", "heads"):
        as_object(adapter.get(kind, {}), f"`{kind}` of `{file}`")
    for name in ("roots", "trained"):
        listed = adapter.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(one, str) and "/" not in one for one in listed):
            raise CheckpointError(f"`{name}` of `{file}` is {listed!r:.80}; expected a list of names")
    if "roots" not in adapter:
        raise CheckpointError(f"`{file}` does not say what its adapter adapts (`roots`); save it again")


def _of_peft(folder: Path) -> AdapterFolder:
    above = folder.resolve().parent
    if folder.resolve().name.startswith(FOLDER) and is_adapter_folder(above):
        raise CheckpointError(
            f"`{folder}` is one piece of the adapter `{above}`, which records its base and its tokens: give that"
        )
    absent = absent_files(folder)
    if absent:
        raise CheckpointError(f"`{folder}` is no whole adapter: {', '.join(absent)} missing. Copy or save it again")
    return AdapterFolder(folder=folder, roots={LANGUAGE: folder})


def name_to_load(backbone: Any) -> str:
    """What loads this backbone again: an id, a folder wherever one stands, a hub name."""
    row = row_of(backbone.identifier)
    if row is not None and row.hub == backbone.hf_hub_path:
        return backbone.identifier
    folder = Path(backbone.hf_hub_path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else backbone.hf_hub_path


def base_of(folder: str | Path) -> str:
    """The base that an adapter names: an id, a folder, or a hub name."""
    found = read_adapter(folder)
    named = found.adapter.get("source") or read_json(found.roots[LANGUAGE] / CONFIG).get("base_model_name_or_path")
    how = "Name its base: --base, or load_adapter(base, folder)"
    if not named:
        raise CheckpointError(f"the adapter in `{found.folder}` does not say which base it was trained on. {how}")
    if Path(named).expanduser().is_dir() or row_of(named) is not None:
        return named
    if named.count("/") != 1 or named.startswith((".", "/", "~")):  # a hub name has one
        raise CheckpointError(
            f"the adapter in `{found.folder}` was trained on `{named}`, which is neither an id nor a folder here. {how}"
        )
    return named


def rows_without_pads(backbone: Any) -> int | None:
    """How many rows the tables had before the pad tokens that came last; None where none did."""
    rows = None
    for growth in reversed(backbone.growths if backbone is not None else []):
        if not growth.is_pad:
            break
        rows = growth.rows_before
    return rows


def require_tokens(backbone: Any, folder: Path) -> None:
    """A tokenizer beside PEFT's files that knows tokens which the base does not: they were added before the training."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    known = backbone.tokenizer.get_vocab()
    added = {entry["content"]: entry["id"] for entry in read_json(file).get("added_tokens", [])}
    lacking = {token: number for token, number in added.items() if known.get(token) != number}
    if lacking:
        taken = {number: f"; there it is {token!r}" for token, number in known.items()}
        listing = ", ".join(f"{token!r} ({n}{taken.get(n, '')})" for token, n in sorted(lacking.items(), key=_second))
        raise CheckpointError(
            f"the tokenizer in `{folder}` has tokens that the base has not, or not so: {listing}. Add them with "
            "grow_vocabulary(backbone, [...]), where need be after undo_growth(backbone) has taken a pad token back, and "
            "give that backbone as base"
        )


def _second(pair: tuple[str, int]) -> int:
    return pair[1]

"""Where a checkpoint is, and whether it is whole: every fault of a folder or hub name, reported before anything loads.

A local folder is inspected file by file; a hub name is resolved through its `config.json`, whose download tells a
private repository from an absent one and from an absent network. It does not know models' insides.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.backbone.gguf.header import looks_like_gguf
from vertebra.backbone.real import REAL, fetched
from vertebra.errors import CheckpointError, ConfigError, NetworkError
from vertebra.reading import as_object, inside, json_of, read_json, reading

RECORD = "vertebra.json"
RUN = "run.yaml"
"""The resolved config of a run; what tells its folder from any other."""
MULTIMODAL = "vertebra"
"""The model type in the config of a multimodal folder: a plain language model's would let others load half of it."""
OPENVLA_TYPES = ("openvla", "prismatic")
"""Model types of OpenVLA's folders, whose language model is described and stored inside of theirs."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model", "tekken.json")
"""Files that hold a vocabulary; `tokenizer_config.json` does not."""
_MOST = {
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_local_experts", "num_experts"), 4096
    ),
    "num_labels": 100_000,
}
# (index of the shards, single file): safetensors first, `.bin` only where there is nothing else
_WEIGHTS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint that was found: its name, the folder that holds its small files, and its config as plain data."""

    name: str
    folder: Path
    config: dict[str, Any]
    local: bool
    """A folder that the user named, not a snapshot in the hub's cache."""
    inside: bool = False
    """The config is that of the language model inside of a larger one."""

    @property
    def record(self) -> dict[str, Any]:
        """What `vertebra.json` says, or nothing for a checkpoint that was not written by us."""
        path = self.folder / RECORD
        record = read_json(path) if path.is_file() else {}
        for name in ("backbone", "parts", "record"):
            as_object(record.get(name) or {}, f"`{name}` of `{path}`")
        return record

    def file(self, name: str, *, token: str | None = None) -> Path | None:
        """A small file of the checkpoint, fetched where it is on the hub; None where it has none."""
        if self.local:
            return self.folder / name if (self.folder / name).is_file() else None
        try:
            return fetch(self.name, name, token=token)
        except (CheckpointError, NetworkError):  # absent on the hub, or not cached and out of reach
            return None


def find(name: str | Path, *, token: str | None = None) -> CheckpointSource:
    """Resolve a folder or hub name, or say exactly what is missing."""
    text = str(name)
    here = fetched(text)
    folder = here or Path(text).expanduser()
    if folder.is_dir():
        data, inside = _language(_local_config(folder), f"`{folder / 'config.json'}`")
        return CheckpointSource(text, folder, _checked(text, data), local=True, inside=inside)
    if folder.is_file() and looks_like_gguf(folder):
        from vertebra.backbone.gguf.convert import gguf_folder  # only such a file needs what it imports

        made = gguf_folder(folder)
        return CheckpointSource(text, made, _checked(text, _local_config(made)), local=True)
    if folder.exists():
        raise CheckpointError(
            f"`{text}` is a file; expected a folder with config.json, weights and tokenizer files, or a GGUF file"
        )
    if looks_like_a_path(text):
        raise CheckpointError(
            f"there is no folder `{text}`. Give a folder with config.json, a hub name (`org/name`), or an id"
        )
    if text in REAL:
        text = REAL[text].hub
    config = fetch(text, "config.json", token=token)
    data, inside = _language(read_json(config), f"the config of `{text}`")
    source = CheckpointSource(text, config.parent, _checked(text, data), local=False, inside=inside)
    source.file(RECORD, token=token)  # into the same snapshot: a folder of ours that was put on the hub
    return source


def left_by_run(name: str | Path) -> str | Path:
    """The model or the adapter in the folder of a run; any other name as it is."""
    folder = Path(name).expanduser()
    if not (folder / RUN).is_file() or (folder / "config.json").is_file():
        return name
    for left in (folder / "model", folder / "adapter"):
        if left.is_dir():
            return left
    raise CheckpointError(
        f"`{name}` is a run that has left no model yet: neither `model/` nor `adapter/` is there. Finish it with "
        "--resume, or write the model of a checkpoint with `vertebra export`"
    )


def fetch(repo: str, filename: str, *, token: str | None = None) -> Path:
    """One file of a hub repository, from the cache or the network; each way to fail has its own message."""
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, filename, token=token))
    except hub.GatedRepoError as error:
        raise CheckpointError(
            f"`{repo}` is gated: accept its terms on its page on the hub, then pass `hf_token=` or run `hf auth login`"
        ) from error
    except hub.RepositoryNotFoundError as error:
        hint = "the token given cannot see it" if token else "if it is private, pass `hf_token=` or run `hf auth login`"
        raise CheckpointError(f"the hub has no repository `{repo}` that is visible here; {hint}") from error
    except hub.LocalEntryNotFoundError as error:  # offline, or the network failed and nothing is cached
        raise NetworkError(
            f"`{filename}` of `{repo}` is not in the local cache and the hub cannot be reached "
            "(no network, or HF_HUB_OFFLINE is set). Give a local folder, or fetch it where there is a network"
        ) from error
    except hub.EntryNotFoundError as error:
        raise CheckpointError(f"`{repo}` on the hub has no `{filename}`") from error
    except hub.HFValidationError as error:
        raise ConfigError(
            f"`{repo}` is neither an id, nor an existing folder, nor a hub name like `org/name`"
        ) from error
    except hub.HfHubHTTPError as error:
        raise NetworkError(
            f"the hub answered for `{filename}` of `{repo}` with an error: {error}. Try again later"
        ) from error


def looks_like_a_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..") or text.count("/") > 1 or "\\" in text


def _local_config(folder: Path) -> dict[str, Any]:
    if not any(folder.iterdir()):
        raise CheckpointError(f"`{folder}` is empty; expected config.json, weights (*.safetensors) and tokenizer files")
    config = folder / "config.json"
    if not config.is_file():
        record = folder / RECORD
        if (folder / "adapter_config.json").is_file() or (record.is_file() and "adapter" in read_json(record)):
            raise CheckpointError(
                f"`{folder}` is an adapter and has no config.json of its own. Give its base, or the folder that "
                "`vertebra merge BASE ADAPTER OUT` writes"
            )
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise CheckpointError(
            f"`{folder}` has no config.json (it holds {found}); give the folder that `save_pretrained` wrote"
        )
    return read_json(config)


def _language(config: dict[str, Any], where: str) -> tuple[dict[str, Any], bool]:
    """The config of the language model, and whether it stood inside of a larger one: in a folder of ours, or OpenVLA's."""
    kind = config.get("model_type")
    if kind != MULTIMODAL and kind not in OPENVLA_TYPES:
        return config, False
    text = as_object(config.get("text_config", {}), f"`text_config` of {where}")
    stored = config.get("dtype") or config.get("torch_dtype")
    if kind in OPENVLA_TYPES and stored and not (text.get("dtype") or text.get("torch_dtype")):
        text = {**text, "dtype": stored}
    return text, True


def _checked(name: str, config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"the config of `{name}` has the model_type {config.get('model_type')!r}; expected a name such as `llama`. Old "
            "folders lack it: add the line to config.json"
        )
    _refuse_remote_code(name, config)
    require_counts(name, config)
    return config


def require_counts(name: str, config: dict[str, Any]) -> None:
    """Counts that readers loop over before anything can fail: a damaged one costs all memory, or hours, and one below
    zero fails long after."""
    text = config.get("text_config")
    for holder in (config, text if isinstance(text, dict) else {}):
        for key, most in _MOST.items():
            if isinstance(holder.get(key), (int, float)) and not 0 <= holder[key] <= most:
                raise CheckpointError(
                    f"the config of `{name}` has the {key} {holder[key]!r:.20}; expected 0 to {most:,}. Correct config.json"
                )


def _refuse_remote_code(name: str, config: dict[str, Any]) -> None:
    """A config that asks for code of its own is refused, unless the library has the same model natively."""
    if not config.get("auto_map"):
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") in CONFIG_MAPPING:
        return
    raise CheckpointError(
        f"`{name}` needs code that ships inside the checkpoint ({_first(config['auto_map'])}); remote code is "
        f"never run. Model type `{config.get('model_type')}` is not among those that the installed transformers has"
    )


def _first(auto_map: Any) -> str:
    named = sorted(map(str, auto_map.values())) if isinstance(auto_map, dict) else [str(auto_map)]
    return named[0][:80]


def require_tokenizer(folder: Path, name: str) -> None:
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise CheckpointError(
            f"`{name}` has no tokenizer ({', '.join(TOKENIZER_FILES[:3])} …); fetch it again, or save it beside the "
            "weights with `tokenizer.save_pretrained(folder)`"
        )


def weights_folder(source: CheckpointSource, *, token: str | None = None) -> Path:
    """The folder that holds a checkpoint's weights; those of a hub name are fetched first, one snapshot for all."""
    if source.local:
        return source.folder
    unreachable: NetworkError | None = None
    for index, single in _WEIGHTS:
        for name in (index, single):
            try:
                found = fetch(source.name, name, token=token)
            except NetworkError as error:
                unreachable = error  # perhaps it has no such file, and the next is in the cache
                continue
            except CheckpointError:
                continue
            for shard in _shard_names(found) if name == index else ():
                fetch(source.name, shard, token=token)
            return source.folder
    if unreachable is not None:
        raise NetworkError(f"the weights of `{source.name}` cannot be fetched: {unreachable}") from unreachable
    raise CheckpointError(f"`{source.name}` on the hub has no weights; expected {_WEIGHTS[0][1]}, whole or in shards")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, whole and readable: safetensors first, `.bin` only where there is nothing else."""
    for index, single in _WEIGHTS:
        if (folder / index).is_file():
            files = _shards(folder, index)
        elif (folder / single).is_file():
            files = [folder / single]
        else:
            continue
        for file in files:
            if file.suffix == ".safetensors":
                read_header(file)
        return files
    raise CheckpointError(f"`{folder}` has no weights; expected {_WEIGHTS[0][1]}, or {_WEIGHTS[0][0]} with its shards")


def _shards(folder: Path, index: str) -> list[Path]:
    names = _shard_names(folder / index)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"`{folder}` lacks {len(absent)} of {len(names)} shards: {', '.join(absent)}")
    return [folder / name for name in names]


def _shard_names(index: Path) -> list[str]:
    named = as_object(read_json(index).get("weight_map", {}), f"`weight_map` of `{index}`")
    if not named:
        raise CheckpointError(f"`{index}` names no shards; the index is damaged")
    return sorted({inside(name, index) for name in named.values()})


def read_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file, checked against the file's length, so that truncation is found at once."""
    size = file.stat().st_size
    with reading(f"`{file}` cannot be read"), file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if length < 2 or length > min(size - 8, 100_000_000):
            raise CheckpointError(f"`{file}` is not a whole safetensors file ({size} bytes); copy or save it again")
        try:
            header = json_of(stream.read(length))
        except ValueError as error:
            raise CheckpointError(f"`{file}` has a damaged header ({error}); copy or save it again") from error
    header = as_object(header, f"the header of `{file}`")
    header.pop("__metadata__", None)
    wrong = [name for name, entry in header.items() if not _is_entry(entry)]
    if wrong:
        raise CheckpointError(
            f"`{file}` has a damaged header: {len(wrong)} of {len(header)} entries are no tensors, such as "
            f"{wrong[0]!r:.80} ({header[wrong[0]]!r:.80}); copy or save it again"
        )
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise CheckpointError(
            f"`{file}` is truncated: its header promises {8 + length + end} bytes, the file has {size}; copy it again"
        )
    return header


def _is_entry(entry: Any) -> bool:
    """Whether a header's entry is what the format says: a type, a shape, and where the bytes begin and end."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return False
    return all(type(n) is int and n >= 0 for n in (*shape, *offsets)) and offsets[0] <= offsets[1]

"""The small files of an OpenVLA folder, read strictly: what it is made of, before any tensor is looked at.

    config.json                 towers, language model, action bins, statistics by data set
    preprocessor_config.json    what happens to an image: `tvf_*` are what was really done, not `means` and `stds`
    dataset_statistics.json     of the data that a fine-tuned model saw, in place of those of the config

Every other small file is kept as it is, for writing back. Code that lies in the folder is neither read nor run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vertebra.backbone.source import OPENVLA_TYPES, RECORD
from vertebra.errors import CheckpointError, ConfigError
from vertebra.reading import as_object, read_json

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
STATISTICS = "dataset_statistics.json"
CHECKPOINTS = "checkpoints"
"""Where a run of prismatic's has its `.pt` files."""
ADAPTER = "lora_adapter"
"""Where OFT has its adapter."""
Kind = Literal["huggingface", "oft", "prismatic"]
KEPT = (".json", ".model", ".txt", ".jinja")
"""Endings of files that are kept for writing back; `.py` is not among them."""
_NEEDED = ("text_config", "timm_model_ids", "image_sizes", "use_fused_vision_backbone")
ACTIVATIONS = ("gelu", "quick_gelu")
"""What may take the place of a tower's own activation; both are exact."""
WEIGHTS = tuple(stem + end for stem in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json"))
LARGEST = 64 * 2**20
"""A small file is smaller than this."""


@dataclass(frozen=True, kw_only=True)
class OpenVLAFacts:
    """What an OpenVLA folder says of itself."""

    where: str
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    statistics: Mapping[str, Any]
    """By data set, as `norm_stats`."""
    timm_ids: tuple[str, ...]
    image_sizes: tuple[int, ...]
    text: Mapping[str, Any] = field(default_factory=dict)
    """The language model's config."""

    @property
    def bins(self) -> int:
        return self.count("n_action_bins", 256)

    def count(self, name: str, default: int, *, text: bool = False) -> int:
        """A whole number of the config, or of the language model's."""
        value = (self.text if text else self.config).get(name, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise CheckpointError(
                f"`{name}` of `{self.where}/{CONFIG}` is {value!r:.40}; expected a whole number, such as {default}"
            )
        return value

    def activation(self, number: int) -> str | None:
        """What stands in place of a tower's own activation."""
        given = self.config.get("timm_override_act_layers")
        if given is None:
            return None
        known = isinstance(given, list) and len(given) == len(self.timm_ids)
        if not known or any(one is not None and one not in ACTIVATIONS for one in given):
            raise CheckpointError(
                f"`timm_override_act_layers` of `{self.where}/{CONFIG}` is {given!r:.80}; expected null or one of "
                f"{', '.join(ACTIVATIONS)} for each tower"
            )
        return given[number]

    @property
    def acts(self) -> bool:
        """Whether it is a policy, and no vision-language model alone."""
        return bool(self.statistics)

    def dims(self) -> dict[str, int]:
        """Numbers in an action, by data set."""
        return {key: len(entry["action"]["q01"]) for key, entry in self.statistics.items()}


def kind_of(where: str | Path) -> Kind | None:
    """Which of OpenVLA's forms a folder (or a `.pt` file of a run) has; None: none of them. A folder that is damaged is for
    whoever reads it to name."""
    place = Path(where).expanduser()
    run = run_of(place)
    if (run / CHECKPOINTS).is_dir() and {"vla", "model"} & set(_config(run)):
        return "prismatic"
    if not place.is_dir() or (place / RECORD).is_file():  # the latter is ours
        return None
    ours = _config(place).get("model_type")
    if ours not in OPENVLA_TYPES and ours is not None:
        return None
    if any(place.glob("*--*checkpoint.pt")) or (place / ADAPTER / "adapter_config.json").is_file():
        return "oft"
    return "huggingface" if ours is not None else None


def run_of(where: Path) -> Path:
    """The run that a folder or a checkpoint is of."""
    return where.parents[1] if where.suffix == ".pt" and where.parent.name == CHECKPOINTS else where


def _config(folder: Path) -> Mapping[str, Any]:
    """The config of a folder; nothing where there is none, or none that can be read."""
    file = folder / CONFIG
    try:
        return read_json(file) if file.is_file() and file.stat().st_size < LARGEST else {}
    except (CheckpointError, OSError):
        return {}


def read_facts(folder: Path, base: Path | None = None) -> OpenVLAFacts:
    """The facts of a folder in Hugging Face's form, all faults of its config in one error. `base`: whose config holds
    where the folder has none of its own."""
    place = folder if (folder / CONFIG).is_file() or base is None else base
    config = read_json(place / CONFIG)
    absent = [name for name in _NEEDED if config.get(name) is None]
    if absent:
        raise CheckpointError(
            f"`{place / CONFIG}` lacks {', '.join(absent)}; expected the config of an OpenVLA folder. Copy it again"
        )
    ids, sizes = _strings(config["timm_model_ids"], "timm_model_ids", folder), config["image_sizes"]
    fused = bool(config["use_fused_vision_backbone"])
    if not isinstance(sizes, list) or len(sizes) != len(ids) or not all(type(n) is int and n > 0 for n in sizes):
        raise CheckpointError(f"`image_sizes` of `{folder / CONFIG}` is {sizes!r:.80}; expected one size a tower")
    if len(ids) != 1 + fused:
        raise CheckpointError(
            f"`{folder / CONFIG}` names {len(ids)} towers ({', '.join(ids)}) and has use_fused_vision_backbone={fused}; "
            "expected two towers where they are fused, else one"
        )
    return OpenVLAFacts(
        where=str(folder),
        config=config,
        preprocessor=_preprocessor(folder if (folder / PREPROCESSOR).is_file() or base is None else base),
        statistics=read_statistics(folder, config),
        timm_ids=ids,
        image_sizes=tuple(sizes),
        text=as_object(config["text_config"], f"`text_config` of `{folder / CONFIG}`"),
    )


def read_statistics(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """By data set: those of the folder's own file where it has one, as the original does, else those of the config."""
    file = folder / STATISTICS
    place = f"`{file}`" if file.is_file() else f"`norm_stats` of `{folder / CONFIG}`"
    given = read_json(file) if file.is_file() else as_object(config.get("norm_stats") or {}, place)
    if given and isinstance(given.get("action"), dict) and "q01" in given["action"]:
        raise CheckpointError(
            f"{place} holds the statistics of one data set without its name; put them under the name that "
            '`unnorm_key` will have: {"NAME": {"action": …}}'
        )
    for key, entry in given.items():
        _check_statistics(key, entry, place)
    return given


def _check_statistics(key: str, entry: Any, place: str) -> None:
    entry = as_object(entry, f"`{key}` in {place}")
    for kind in ("action", "proprio"):
        if kind not in entry and kind == "proprio":
            continue
        numbers = as_object(entry.get(kind), f"`{key}.{kind}` in {place}")
        lengths = {name: len(value) for name, value in numbers.items() if isinstance(value, list)}
        missing = [name for name in ("q01", "q99") if name not in lengths]
        if missing or len(set(lengths.values())) > 1:
            raise CheckpointError(
                f"`{key}.{kind}` in {place} has the lengths {lengths}; expected q01, q99 and all others of one length"
            )


def _preprocessor(folder: Path) -> dict[str, Any]:
    file = folder / PREPROCESSOR
    if not file.is_file():
        raise CheckpointError(
            f"`{folder}` has no {PREPROCESSOR}, which says how images become pixels; copy it from where the folder came "
            "from, for guessing it would give other actions"
        )
    return read_json(file)


def small_files(folder: Path) -> dict[str, bytes]:
    """Files to be kept for writing back: every small one that holds data, none that holds code or weights."""
    found = {}
    for file in sorted(folder.iterdir()):
        kept = file.is_file() and file.suffix in KEPT and not file.name.endswith(".index.json")
        if kept and file.stat().st_size <= LARGEST:
            found[file.name] = file.read_bytes()
    return found


def _strings(given: Any, name: str, folder: Path) -> tuple[str, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise CheckpointError(f"`{name}` of `{folder / CONFIG}` is {given!r:.80}; expected a list of names")
    return tuple(given)


def require_one_size(facts: OpenVLAFacts) -> int:
    """The side of its images; towers that look at images of several sizes cannot share them."""
    if len(set(facts.image_sizes)) > 1:
        raise ConfigError(
            f"`{facts.where}` has towers for images of {facts.image_sizes} pixels; expected one size for both"
        )
    return facts.image_sizes[0]


def has_weights(folder: Path) -> bool:
    """Whether a model's own weights lie in a folder, be some of their shards missing."""
    return any((folder / name).is_file() for name in WEIGHTS)

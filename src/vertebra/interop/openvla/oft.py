"""What OpenVLA-OFT puts beside a model, and what of it no file says.

    action_head--STEP_checkpoint.pt         the head's tensors, `module.` of DDP before their names
    proprio_projector--STEP_checkpoint.pt   fc1, fc2
    vision_backbone--STEP_checkpoint.pt     FiLM: the towers whole, wrapped by PEFT and by FiLM
    lora_adapter/                           an adapter over a base; its work is in the shards where there are some

The length of a chunk, the number of cameras and the kind of normalisation are stored nowhere: training took them from the
name of its command. Here the robot is guessed by names of folder and data sets, then by the numbers of an action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from vertebra.backbone.weights import plain_bin
from vertebra.errors import CheckpointError, ConfigError
from vertebra.interop.openvla.folder import ADAPTER
from vertebra.interop.openvla.lora import lora_of, merged
from vertebra.interop.openvla.options import Guesses, ImportOptions
from vertebra.reading import read_json
from vertebra.tune.folder import CONFIG

HEAD, PROPRIO, NOISY, VISION = "action_head", "proprio_projector", "noisy_action_projector", "vision_backbone"
WRAPPED = "vision_backbone."


@dataclass(frozen=True, kw_only=True)
class Robot:
    """What OFT's constants are for one of its robots."""

    name: str
    chunk: int
    dims: int
    proprio: int
    cameras: tuple[str, ...]
    """With proprio; without it there is one."""
    normalization: Literal["quantile", "min-max"] = "quantile"


ROBOTS: tuple[Robot, ...] = (
    Robot(name="libero", chunk=8, dims=7, proprio=8, cameras=("image", "wrist")),
    Robot(
        name="aloha", chunk=25, dims=14, proprio=14, cameras=("image", "left_wrist", "right_wrist"),
        normalization="min-max",
    ),
    Robot(name="bridge", chunk=5, dims=7, proprio=7, cameras=("image",)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Extras:
    """What was found beside a model."""

    head: Mapping[str, torch.Tensor] = field(default_factory=dict)
    proprio: Mapping[str, torch.Tensor] = field(default_factory=dict)
    noisy: Mapping[str, torch.Tensor] = field(default_factory=dict)
    vision: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Towers with FiLM under the names of Hugging Face's form; their blocks also have `scale` and `shift`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Which file each came from."""
    rank: int | None = None
    """Of the matrices that PEFT wrapped around the towers with FiLM; None where it wrapped none."""

    @property
    def diffuses(self) -> bool:
        """Whether its head removes noise, step by step."""
        return bool(self.noisy) or any(name.startswith("noise_predictor.") for name in self.head)


def read_extras(folder: Path) -> Extras:
    """Everything beside the model, each file at most once."""
    files = {part: _files(folder, part) for part in (HEAD, PROPRIO, NOISY, VISION)}
    several = [f"{part}: {', '.join(file.name for file in found)}" for part, found in files.items() if len(found) > 1]
    if several:
        raise CheckpointError(
            f"`{folder}` has checkpoints of several steps ({'; '.join(several)}); leave one of each there, or load the "
            "folder of one step"
        )
    read = {part: _unwrapped(plain_bin(found[0])) for part, found in files.items() if found}
    vision = read.get(VISION, {})
    ranks = {len(tensor) for name, tensor in vision.items() if ".lora_A." in name}
    return Extras(
        rank=next(iter(ranks), None),
        head=read.get(HEAD, {}), proprio=read.get(PROPRIO, {}), noisy=read.get(NOISY, {}),
        vision=_towers(vision, folder) if vision else {},
        files={part: found[0].name for part, found in files.items() if found},
    )  # fmt: skip


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(file for file in folder.glob(f"{part}--*checkpoint.pt") if file.is_file())


def _unwrapped(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what DDP puts before names."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _towers(tensors: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Towers as FiLM and PEFT wrap them, unwrapped, with what PEFT added merged."""
    named = {name.replace(".block.", ".").replace(".base_layer", ""): t for name, t in tensors.items()}
    if not any(name.endswith(".scale.weight") for name in named):
        raise CheckpointError(
            f"the {VISION} checkpoint in `{folder}` has no scale and shift in its blocks; expected towers with FiLM"
        )
    matrices = {name: tensor for name, tensor in named.items() if ".lora_" in name}
    base = {name: tensor for name, tensor in named.items() if name not in matrices}
    if not matrices:
        return base
    config = folder / ADAPTER / CONFIG
    lora = lora_of(matrices, read_json(config) if config.is_file() else {}, f"{folder}: {VISION}")
    return merged(base, lora, dtype=torch.float32, base=str(folder))


def wrapped(towers: Mapping[str, torch.Tensor], rank: int | None) -> dict[str, torch.Tensor]:
    """Towers with FiLM as OFT's loader expects them: its wrappers in their names, and matrices of PEFT's that do nothing,
    for their work is in the weights."""
    linear = {name.rpartition(".")[0] for name, tensor in towers.items() if tensor.ndim == 2 and _is_linear(name)}
    made: dict[str, torch.Tensor] = {}
    for name, tensor in towers.items():
        stem, _, leaf = name.rpartition(".")
        own = stem if _is_film(stem) else re.sub(r"(\.blocks\.\d+)\.", r"\1.block.", stem)
        if rank is None or stem not in linear:
            made[f"{own}.{leaf}" if stem else name] = tensor
            continue
        made[f"{own}.base_layer.{leaf}"] = tensor
        if leaf == "weight":
            made[f"{own}.lora_A.default.weight"] = tensor.new_zeros(rank, tensor.shape[1])
            made[f"{own}.lora_B.default.weight"] = tensor.new_zeros(len(tensor), rank)
    return made


def _is_film(stem: str) -> bool:
    return stem.endswith((".scale", ".shift"))


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and not _is_film(name.rpartition(".")[0])


def robot_of(names: tuple[str, ...], dims: int, proprio: int | None) -> Robot | None:
    """The robot that names, or else numbers, are of."""
    fitting = [robot for robot in ROBOTS if robot.dims == dims]
    for robot in fitting:
        if any(robot.name in name.lower() for name in names):
            return robot
    exact = [robot for robot in fitting if robot.proprio == proprio]
    return next(iter(exact + fitting), None)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a chunk is, and where it comes from."""

    chunk: int
    dims: int
    cameras: tuple[str, ...]
    normalization: Any
    proprio: int | None


def shape_of(names: tuple[str, ...], dims: int, proprio: int | None, options: ImportOptions, guesses: Guesses) -> Shape:
    """Chunk, cameras and normalisation, from options or from the robot that is guessed."""
    robot = robot_of(names, dims, proprio)
    chunk = options.chunk or (robot.chunk if robot else None)
    if chunk is None:
        raise ConfigError(
            f"actions of {dims} numbers are those of no robot that OFT has constants for, and no file says how long its "
            "chunks are; give chunk=…"
        )
    cameras = options.cameras or ((robot.cameras if robot and proprio else None) or ("image",))
    normalization = robot.normalization if robot else "quantile"
    guessed = [f"chunks of {chunk} (chunk=…)"] if options.chunk is None else []
    guessed += [f"cameras {', '.join(cameras)} (cameras=…)"] if options.cameras is None else []
    if guessed:
        who = f"the robot `{robot.name}`" if robot else "no known robot"
        guesses.add(f"taken for {who}, since no file says it: {' and '.join(guessed)}, {normalization} normalisation")
    return Shape(chunk=chunk, dims=dims, cameras=cameras, normalization=normalization, proprio=proprio)

"""LoRA adapters of OpenVLA's kin, merged at the names of their base: before anything is split or renamed.

    base_model.model.vision_backbone.….attn.qkv.lora_{A,B}.weight    +  qkv.weight [3 D, D]
    base_model.model.vision_backbone.….patch_embed.proj.lora_A       +  proj.weight, a convolution: B · A as one, reshaped
    base_model.model.language_model.lm_head.base_layer.weight        what the adapter stood on: the base must have it too

Merged in fp32, then cast. What has been merged once is not merged again: a base that carries the adapter's own mark, or
whose matrices are not those that the adapter was trained on, is refused. `target_modules` are not needed: the tensors are
their own list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vertebra.backbone.weights import some
from vertebra.errors import CheckpointError
from vertebra.reading import read_json, reading
from vertebra.tune.folder import CONFIG, digest, tensors_of

PREFIX = "base_model.model."
BASE = ".base_layer"
_MATRIX = re.compile(r"^(.+)\.lora_([AB])(?:\.default)?\.weight$")
# What a config may ask for that is more than B · A.
_MORE = ("use_dora", "layer_replication", "modules_to_save", "alora_invocation_tokens")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora:
    """An adapter: pairs of matrices by the name of the weight that they change."""

    where: str
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scales: Mapping[str, float]
    base: Mapping[str, torch.Tensor]
    """Tensors of the base that the adapter's file holds as well."""
    digest: str = ""

    def delta(self, name: str, shape: torch.Size) -> torch.Tensor:
        """What is added to a weight, in fp32."""
        a, b = (matrix.float() for matrix in self.pairs[name])
        return (b.flatten(1) @ a.flatten(1)).mul_(self.scales[name]).view(shape)

    def without(self, prefix: str) -> Lora:
        """The adapter without what it does to tensors whose names begin so."""

        def kept(given: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in given.items() if not name.startswith(prefix)}

        return replace(self, pairs=kept(self.pairs), scales=kept(self.scales), base=kept(self.base))


def read_lora(folder: Path) -> Lora:
    """The adapter in a PEFT folder."""
    config = read_json(folder / CONFIG)
    asked = [name for name in _MORE if config.get(name)]
    if config.get("peft_type", "LORA") != "LORA" or asked or config.get("bias", "none") != "none":
        raise CheckpointError(
            f"the adapter in `{folder}` is {config.get('peft_type')} with {', '.join(asked) or config.get('bias')}; plain "
            "LoRA without biases is merged here. Merge it with the code that trained it"
        )
    with reading(f"`{folder / CONFIG}` is damaged", "copy it again"):
        return lora_of(tensors_of(folder), config, str(folder), digest([folder]))


def lora_of(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], where: str, mark: str = "") -> Lora:
    """An adapter from its tensors, whichever wrapper their names come from."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    base = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(PREFIX)
        if found := _MATRIX.match(own):
            halves.setdefault(f"{found[1]}.weight", {})[found[2]] = tensor
        elif BASE in own:
            base[own.replace(BASE, "")] = tensor
        else:
            raise CheckpointError(f"`{name}` in `{where}` is no part of a LoRA adapter; expected lora_A and lora_B")
    lone = [name for name, pair in halves.items() if len(pair) < 2]
    if lone or not halves:
        raise CheckpointError(
            f"`{where}` has only one of lora_A and lora_B for {some(lone) or 'anything'}; copy it again"
        )
    pairs = {name: (pair["A"], pair["B"]) for name, pair in halves.items()}
    scales = {name: _scale(name, len(a), config) for name, (a, _) in pairs.items()}
    return Lora(where=where, pairs=pairs, scales=scales, base=base, digest=mark)


def _scale(name: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / r of one weight, by the config's patterns; OFT's own rule where there is no config."""
    layer = name.removesuffix(".weight")

    def of(setting: str, default: Any) -> Any:
        patterns = config.get(f"{setting.removeprefix('lora_')}_pattern") or {}
        fitting = [value for key, value in patterns.items() if re.search(rf"(^|\.){key}$", layer)]
        return fitting[0] if fitting else config.get(setting, default)

    alpha = of("lora_alpha", min(rank, 16))
    if of("r", rank) != rank:
        raise CheckpointError(
            f"`{name}` has rank {rank} in its tensors, and {of('r', rank)} in {CONFIG}; copy it again"
        )
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def merged(
    tensors: Mapping[str, torch.Tensor],
    lora: Lora,
    *,
    dtype: torch.dtype | None,
    base: str,
    before: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """The base's tensors with an adapter in them, in `dtype` (None: that of each). `before`: marks of adapters that are in
    the base already. The given tensors are not changed."""
    if lora.digest and lora.digest in before:
        raise CheckpointError(
            f"the adapter in `{lora.where}` is merged into `{base}` already; name the base that it was trained on, unmerged"
        )
    unknown = [name for name in (*lora.pairs, *lora.base) if name not in tensors]
    if unknown:
        raise CheckpointError(
            f"the adapter in `{lora.where}` changes {some(unknown)}, which `{base}` does not have; name the base that it "
            "was trained on"
        )
    changed = [name for name, own in lora.base.items() if not _same(tensors[name], own)]
    if changed:
        raise CheckpointError(
            f"`{base}` is not what the adapter in `{lora.where}` was trained on: {some(changed)} differ from those that it "
            "brings. It may be merged already; name the base, unmerged"
        )
    made = dict(tensors)
    for name in lora.pairs:
        weight = tensors[name]
        a, b = lora.pairs[name]
        if a.shape[1:] != weight.shape[1:] or len(b) != len(weight) or b.shape[1] != len(a):
            raise CheckpointError(
                f"`{name}` is {tuple(weight.shape)} in `{base}`, and the adapter in `{lora.where}` has {tuple(b.shape)} · "
                f"{tuple(a.shape)}; name the base that it was trained on"
            )
        made[name] = (weight.float() + lora.delta(name, weight.shape)).to(dtype or weight.dtype)
    return made


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same numbers, in the narrower of their types."""
    narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return one.shape == other.shape and torch.equal(one.to(narrow), other.to(narrow))

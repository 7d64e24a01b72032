"""`L1Head`: a chunk of actions by regression from the hidden states of its slots, as OpenVLA-OFT does it.

    [M, chunk · dims, D] ──► [M, chunk, dims · D] ──► LN ─ fc1 ─ ReLU ─ (x + ReLU(Linear(LN(x)))) × blocks ─ LN ─ fc2
    [M, 1, D]            ──► [M, D]               ──► the same, all numbers of a chunk at once        `one_slot`

Every number of a chunk has a slot of its own, the numbers of one action one after the other; or one slot stands for all
of them, which is shorter. The names of modules are those of OFT's checkpoints, so that their tensors go in as they are.
Behind the end of an episode there is nothing to learn (`NO_VALUE`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from vertebra.errors import CheckpointError
from vertebra.model.heads.interface import ActionHead, ChunkPlaces, SeenByHeads, are_known, require_sizes, wide


class ResidualBlock(nn.Module):
    """x + ReLU(Linear(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.ffn(x)


class ResidualNet(nn.Module):
    """OFT's `MLPResNet`."""

    def __init__(self, width_in: int, hidden: int, width_out: int, blocks: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width_in)
        self.fc1 = nn.Linear(width_in, hidden)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1Head(ActionHead):
    """Regression with the mean absolute error."""

    kind: ClassVar[str] = "l1"
    reads: ClassVar[Literal["hidden", "keys"]] = "hidden"

    def __init__(
        self,
        width: int,
        *,
        chunk: int,
        dims: int,
        hidden: int | None = None,
        blocks: int = 2,
        one_slot: bool = False,
    ) -> None:
        """`width`: of the hidden states. `hidden`: of the network; as wide as they are by default. `one_slot`: for a whole
        chunk, in place of one a number."""
        super().__init__()
        hidden = width if hidden is None else hidden
        require_sizes(width=width, chunk=chunk, dims=dims, hidden=hidden)
        self.width, self.chunk, self.dims, self.hidden, self.blocks = width, chunk, dims, hidden, blocks
        self.one_slot = one_slot
        self.slots = 1 if one_slot else chunk * dims
        wide_in, wide_out = (width, chunk * dims) if one_slot else (width * dims, dims)
        self.model = ResidualNet(wide_in, hidden, wide_out, blocks)

    @classmethod
    def shaped_as(cls, tensors: Mapping[str, torch.Tensor], *, chunk: int) -> L1Head:
        """The head that tensors of a checkpoint fit, by their shapes; the length of a chunk is in none of them."""
        try:
            wide, dims = len(tensors["model.layer_norm1.weight"]), len(tensors["model.fc2.weight"])
            hidden = len(tensors["model.fc1.weight"])
        except KeyError as error:
            raise CheckpointError(
                f"{error} is missing; expected the tensors of an L1 head, `model.fc1.weight` …"
            ) from None
        blocks = len({name.split(".")[2] for name in tensors if name.startswith("model.mlp_resnet_blocks.")})
        if not dims or wide % dims:
            raise CheckpointError(
                f"a head that reads {wide} numbers for {dims}; expected as many hidden states as numbers"
            )
        return cls(wide // dims, chunk=chunk, dims=dims, hidden=hidden, blocks=blocks)

    def settings(self) -> dict[str, Any]:
        settings = {
            "width": self.width, "chunk": self.chunk, "dims": self.dims, "hidden": self.hidden, "blocks": self.blocks
        }  # fmt: skip
        return settings | ({"one_slot": True} if self.one_slot else {})

    def about(self) -> str:
        how = ", all in one slot" if self.one_slot else ""
        return (
            f"{self.chunk} × {self.dims} numbers by L1 regression{how}, {self.blocks} residual blocks of {self.hidden}"
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[M, slots, D] hidden states -> [M, chunk, dims]."""
        states = states.to(self.model.fc1.weight.dtype)
        if self.one_slot:
            return self.model(states[:, 0]).view(-1, self.chunk, self.dims)
        return self.model(states.reshape(len(states), self.chunk, -1))

    def actions(self, seen: SeenByHeads, at: ChunkPlaces, **options: Any) -> torch.Tensor:
        self.refuse(options)
        assert seen.hidden is not None, "it reads hidden states"
        return wide(self(at.before(seen.hidden)))

    def loss(self, seen: SeenByHeads, at: ChunkPlaces, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        known = are_known(values)
        errors = (self.actions(seen, at) - values.where(known, 0)).abs() * known
        if self.one_slot:
            return (errors.sum((1, 2)) / known.sum((1, 2)).clamp(min=1) * weights[:, 0]).sum()
        return (errors * weights.view(errors.shape)).sum()

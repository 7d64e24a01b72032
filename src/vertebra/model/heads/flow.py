"""`FlowHead`: chunks of actions by flow matching, with a small expert that reads the backbone's keys, as π0 does it.

    noise x₀ ──► x ──► [action_in │ sin, cos of t] ──► expert over the prefix ──► velocity v ──► x + v / steps ──► …
    training:  x = t · actions + (1 − t) · noise,  v should be actions − noise        t: 0 noise … 1 actions

The backbone sees images and words once; a denoising step costs the expert alone. One slot in the sequence marks where a
chunk stands. With `delay` it learns to go on from actions that are decided already (they enter clean, at time 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from vertebra.errors import ConfigError, UnknownNameError
from vertebra.model.heads.expert import Expert
from vertebra.model.heads.interface import ActionHead, ChunkPlaces, SeenByHeads, are_known, require_sizes, wide
from vertebra.model.heads.prefix import Prefix, prefix_of
from vertebra.model.heads.previous import Previous, guided, require_previous

Times = Literal["beta", "uniform"]
TIMES: tuple[Times, ...] = ("beta", "uniform")
LAST = 0.999
"""The latest time that `beta` draws."""
_PERIODS = 4e-3, 4.0


class FlowHead(ActionHead):
    """A velocity field over chunks, conditioned on the keys of a backbone's layers."""

    kind: ClassVar[str] = "flow"
    reads: ClassVar[Literal["hidden", "keys"]] = "keys"

    def __init__(
        self,
        width: int,
        *,
        chunk: int,
        dims: int,
        layers: Sequence[int],
        heads: int,
        key_heads: int,
        head_dim: int,
        inner: int | None = None,
        theta: float | None = None,
        steps: int = 10,
        times: Times = "beta",
        delay: int = 0,
        insulated: bool = False,
        draws: int = 1,
    ) -> None:
        """`width`: of the expert; even. `layers`: those of the backbone whose keys are read, one layer of the expert each.
        `heads`, `key_heads`, `head_dim`: as the backbone has them. `theta`: of its rotary positions; None: none. `steps`:
        of a prediction. `times`: how training draws them. `delay`: most actions that training gives as decided.
        `insulated`: the loss of actions does not reach the backbone. `draws`: times and noises for each chunk of a training
        batch, which share the backbone's pass."""
        super().__init__()
        inner = 4 * width if inner is None else inner
        require_sizes(
            width=width, chunk=chunk, dims=dims, heads=heads, key_heads=key_heads, head_dim=head_dim, inner=inner,
            steps=steps, layers=len(layers), draws=draws,
        )  # fmt: skip
        _require_settings(width, heads, key_heads, head_dim, theta, times, delay, chunk)
        self.chunk, self.dims, self.slots, self.width = chunk, dims, 1, None
        self.layers, self.steps, self.times, self.delay, self.insulated = tuple(layers), steps, times, delay, insulated
        self.expert_width, self.draws = width, draws
        self._shape = {"heads": heads, "key_heads": key_heads, "head_dim": head_dim, "inner": inner, "theta": theta}
        self.action_in = nn.Linear(dims, width)
        self.time_in = nn.Linear(2 * width, width)
        self.time_out = nn.Linear(width, width)
        self.expert = Expert(width, layers=len(layers), **self._shape)  # type: ignore[arg-type]
        self.action_out = nn.Linear(width, dims)

    def settings(self) -> dict[str, Any]:
        return {
            "width": self.expert_width, "chunk": self.chunk, "dims": self.dims, "layers": list(self.layers), **self._shape,
            "steps": self.steps, "times": self.times, "delay": self.delay, "insulated": self.insulated,
            "draws": self.draws,
        }  # fmt: skip

    def about(self) -> str:
        known = f", going on from up to {self.delay} decided ones" if self.delay else ""
        return (
            f"{self.chunk} × {self.dims} numbers by flow matching in {self.steps} steps, an expert of {len(self.layers)} "
            f"layers of {self.expert_width}{known}"
        )

    # The field

    def velocity(self, x: torch.Tensor, time: torch.Tensor, prefix: Prefix) -> torch.Tensor:
        """Where chunks [M, chunk, dims] move at the times [M, chunk] of their actions; in fp32."""
        dtype = self.action_in.weight.dtype
        moments = sin_cos(time, self.expert_width).to(dtype)
        entering = torch.cat([self.action_in(x.to(dtype)), moments], -1)
        entering = self.time_out(F.silu(self.time_in(entering)))
        return wide(self.action_out(self.expert(entering, prefix)))

    def prefix(self, seen: SeenByHeads, at: ChunkPlaces) -> Prefix:
        """What the chunks of a batch see of the backbone."""
        shape = int(self._shape["key_heads"] or 0), int(self._shape["head_dim"] or 0)
        if self.insulated and seen.keys is not None:
            seen = SeenByHeads(
                batch=seen.batch, keys=tuple((keys.detach(), values.detach()) for keys, values in seen.keys)
            )
        return prefix_of(seen, at, self.layers, shape, self.action_in.weight.dtype)

    # Training

    def loss(self, seen: SeenByHeads, at: ChunkPlaces, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        prefix = self.prefix(seen, at)
        if self.draws > 1:
            values, weights = (table.repeat_interleave(self.draws, 0) for table in (values, weights))
            prefix = prefix.repeated(self.draws)
        known = are_known(values)
        values, known = values.float().where(known, 0), known.all(-1)
        noise, time, decided = self.drawn(values)
        t = time[..., None]
        moves = self.velocity(t * values + (1 - t) * noise, time, prefix)
        errors = (moves - (values - noise)).square().mean(-1)
        free = (~decided & known).to(errors.dtype)
        return ((errors * free).sum(1) / free.sum(1).clamp(min=1) * weights[:, 0]).sum() / self.draws

    def drawn(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(noise, the time of each action, which actions are decided) for chunks to learn from.

        An evaluation draws the same every time, with times evenly spread, so that two of them can be compared.
        """
        count, device = len(values), values.device
        if self.training:
            noise, share = torch.randn_like(values), torch.rand(count, device=device)
            known = torch.randint(0, self.delay + 1, (count,), device=device)
        else:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(values.shape, generator=generator).to(device)
            share = (torch.arange(count, device=device) + 0.5) / count
            known = torch.zeros(count, dtype=torch.long, device=device)
        decided = torch.arange(self.chunk, device=device) < known[:, None]
        time = times_of(share, self.times)[:, None].expand(-1, self.chunk)
        return noise, torch.where(decided, 1.0, time), decided

    # Predicting

    def actions(
        self,
        seen: SeenByHeads,
        at: ChunkPlaces,
        *,
        steps: int | None = None,
        noise: torch.Tensor | None = None,
        previous: Previous | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """`steps`: other than its own. `noise` [M, chunk, dims]: where it begins; drawn by default. `previous`: what is
        left of the chunk that is being carried out."""
        self.refuse(options, "steps", "noise", "previous")
        with torch.no_grad():
            prefix = self.prefix(seen, at)
        return self.denoised(prefix, steps=steps, noise=noise, previous=previous)

    def denoised(
        self,
        prefix: Prefix,
        *,
        steps: int | None = None,
        noise: torch.Tensor | None = None,
        previous: Previous | None = None,
    ) -> torch.Tensor:
        """[M, chunk, dims]: from noise to actions, behind a prefix that is computed already."""
        steps = self.steps if steps is None else steps
        require_sizes(steps=steps)
        shape = (len(prefix.start), self.chunk, self.dims)
        x = torch.randn(shape, device=prefix.start.device) if noise is None else noise.float()
        if tuple(x.shape) != shape:
            raise ConfigError(f"noise has the shape {tuple(x.shape)}; expected {shape}")
        if previous is not None:
            require_previous(previous, shape, self.delay)
            if previous.how == "guided":
                return guided(self.velocity, prefix, x, steps, previous)
        return self._euler(prefix, x, steps, previous)

    @torch.no_grad()
    def _euler(self, prefix: Prefix, x: torch.Tensor, steps: int, previous: Previous | None) -> torch.Tensor:
        prefix = prefix.with_room(self.chunk)
        decided = 0 if previous is None else previous.delay
        for step in range(steps):
            time = torch.full(x.shape[:2], step / steps, device=x.device)
            if previous is not None:
                time[:, :decided] = 1.0
                x = torch.cat([previous.actions[:, :decided].to(x), x[:, decided:]], 1)
            x = x + self.velocity(x, time, prefix) / steps
        if previous is not None:
            x = torch.cat([previous.actions[:, :decided].to(x), x[:, decided:]], 1)
        return x


def times_of(share: torch.Tensor, times: Times) -> torch.Tensor:
    """Times in 0 … 1 of numbers that are evenly spread there: as they are, or more of them near the noise (beta 1.5, 1)."""
    return share if times == "uniform" else LAST * (1 - share ** (2 / 3))


def sin_cos(time: torch.Tensor, width: int) -> torch.Tensor:
    """[…] -> […, width]: sines and cosines of times, of periods from 0.004 to 4."""
    shares = torch.linspace(0, 1, width // 2, device=time.device, dtype=torch.float32)
    shortest, longest = _PERIODS
    angle = time[..., None].float() * (2 * math.pi / shortest * (shortest / longest) ** shares)
    return torch.cat([angle.sin(), angle.cos()], -1)


def _require_settings(
    width: int, heads: int, key_heads: int, head_dim: int, theta: float | None, times: Any, delay: int, chunk: int
) -> None:
    if times not in TIMES:
        raise UnknownNameError("way to draw times", times, TIMES)
    faults = []
    if width % 2:
        faults.append(f"width is {width}; expected an even number, for sines and cosines of times")
    if heads % key_heads:
        faults.append(f"{heads} heads of queries for {key_heads} of keys; expected a multiple")
    if theta is not None and head_dim % 2:
        faults.append(f"head_dim is {head_dim}; rotary positions (theta) turn pairs of numbers")
    if not 0 <= delay < chunk:
        faults.append(f"delay is {delay}; expected 0 to {chunk - 1}: a chunk of {chunk} needs an action that is free")
    if faults:
        raise ConfigError("a flow head that cannot be: " + "; ".join(faults))

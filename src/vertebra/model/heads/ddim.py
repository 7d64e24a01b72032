"""`DdimHead`: a chunk out of noise, step by step through the whole language model, as OpenVLA-OFT's diffusion does it.

    … proprio │ time │ text │ ▢ ▢ ▢ … ▢        each number of the noisy chunk is a slot's embedding, the time another's
                              └─ states ─► noise that is in them ─► a little less of it ─► again, from the last time to 0

Everything sees everything, so that nothing can be kept between steps. Names of modules are OFT's. It denoises; training it is
not done here. M chunks, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from vertebra.errors import CheckpointError, ConfigError
from vertebra.model.heads.interface import ChunkPlaces, NoisyHead, SeenByHeads, require_sizes
from vertebra.model.heads.l1 import L1Head, ResidualNet

PREDICTOR = "noise_predictor.mlp_resnet."


class _Predictor(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.mlp_resnet = ResidualNet(*sizes)


class _Noisy(nn.Module):
    """One number to one embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(1, width), nn.Linear(width, width)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(numbers)))


class DdimHead(NoisyHead):
    """The first of its slots is the time; it stands before the text."""

    kind: ClassVar[str] = "ddim"
    reads: ClassVar[Literal["hidden", "keys"]] = "hidden"
    early: ClassVar[int] = 1
    width: int

    def __init__(
        self, width: int, *, chunk: int, dims: int, hidden: int | None = None, blocks: int = 2, times: int = 50
    ) -> None:
        """`times`: steps of noise that it was trained on."""
        super().__init__()
        hidden = width if hidden is None else hidden
        require_sizes(width=width, chunk=chunk, dims=dims, hidden=hidden, times=times)
        self.width, self.chunk, self.dims, self.hidden, self.blocks, self.times = (
            width,
            chunk,
            dims,
            hidden,
            blocks,
            times,
        )
        self.slots = 1 + chunk * dims
        self.noise_predictor = _Predictor(width * dims, hidden, dims, blocks)
        self.noisy = _Noisy(width)

    @classmethod
    def shaped_as(cls, tensors: Mapping[str, torch.Tensor], *, chunk: int, times: int = 50) -> DdimHead:
        """The head that tensors of a checkpoint fit, by their shapes; chunk and times are in none of them."""
        own = {f"model.{n.removeprefix(PREDICTOR)}": t for n, t in tensors.items() if n.startswith(PREDICTOR)}
        if not own:
            raise CheckpointError(f"no tensor is named `{PREDICTOR}…`; expected those of OFT's diffusion head")
        like = L1Head.shaped_as(own, chunk=chunk)
        return cls(
            int(like.width or 0), chunk=chunk, dims=like.dims, hidden=like.hidden, blocks=like.blocks, times=times
        )

    def settings(self) -> dict[str, Any]:
        names = ("width", "chunk", "dims", "hidden", "blocks", "times")
        return {name: getattr(self, name) for name in names}

    def about(self) -> str:
        size = f"{self.blocks} residual blocks of {self.hidden}"
        return f"{self.chunk} × {self.dims} numbers out of noise of {self.times} steps, {size}"

    def embeddings(self, noisy: torch.Tensor, time: int) -> torch.Tensor:
        weight = self.noisy.fc1.weight
        made = self.noisy(noisy.to(weight.dtype).flatten(1)[..., None])
        return torch.cat([self.waves(time).to(made).expand(len(made), 1, -1), made], 1)

    def waves(self, time: int) -> torch.Tensor:
        """[D] sines, then cosines, of a time."""
        half = self.width // 2
        rates = torch.exp(torch.arange(half) * -math.log(10000) / (half - 1))
        return torch.cat([(time * rates).sin(), (time * rates).cos()])

    def actions(self, seen: SeenByHeads, at: ChunkPlaces, **options: Any) -> torch.Tensor:
        """The noise that one pass sees in its slots; `denoised` asks for it again and again."""
        assert seen.hidden is not None, "it reads hidden states"
        states = at.before(seen.hidden)[:, 1:]
        net = self.noise_predictor.mlp_resnet
        return net(states.reshape(len(states), self.chunk, -1).to(net.fc1.weight.dtype)).float()

    def loss(self, seen: SeenByHeads, at: ChunkPlaces, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        raise ConfigError("OFT's diffusion head denoises here and does not learn; train a head `l1` or `flow`")

    def left(self) -> torch.Tensor:
        """[times]: how much of a clean chunk is left after each time of noise, squared: the squared cosine of OFT."""

        def bar(share: float) -> float:
            return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [min(1 - bar((i + 1) / self.times) / bar(i / self.times), 0.999) for i in range(self.times)]
        return (1.0 - torch.tensor(betas, dtype=torch.float32)).cumprod(0)

    def walk(self, steps: int | None = None) -> Iterator[tuple[int, float, float]]:
        count = self.times if steps is None else steps
        if not 1 <= count <= self.times:
            raise ConfigError(f"steps={count}; expected 1 to {self.times}, the times of noise that it was trained on")
        left, stride = self.left().tolist(), int(self.times) // count
        for number in reversed(range(count)):
            time = number * stride
            yield time, left[time], left[time - stride] if time >= stride else 1.0

    def stepped(self, noisy: torch.Tensor, noise: torch.Tensor, now: float, then: float) -> torch.Tensor:
        """A chunk with less noise in it: cleaned as far as the noise is believed, cut to −1…1, and noised again."""
        clean = ((noisy - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-1, 1)
        return then**0.5 * clean + (1 - then) ** 0.5 * noise

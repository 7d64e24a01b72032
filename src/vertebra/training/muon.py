"""`Muon`: AdamW for single vectors, embeddings and heads; of every other matrix, its momentum made orthogonal.

    AdamW     W -= lr · m / √v                        each number by itself
    Muon      W -= lr · 0.2 √max(rows, columns) · U Vᵀ    of the momentum U S Vᵀ: each direction moves as far as any other

The factor makes steps about as large as AdamW's, so that one learning rate serves both (Moonlight, 2025). U Vᵀ comes from five
steps of Newton and Schulz. torch has this optimizer too, always in bfloat16, which CPUs without units for it multiply many
times slower; here a CPU computes it in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

MOMENTUM = 0.95
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of Newton and Schulz's step, as Muon's authors tuned it: singular values end between 0.7 and 1.2."""
STEPS = 5
TOGETHER = 1 << 26
"""Numbers of matrices that are made orthogonal at once: more would be no faster, and cost memory."""


class Muon(torch.optim.AdamW):
    """Groups with `orthogonal: True` take orthogonal steps; the others are AdamW's own."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # a gradient scaler of fp16 leaves it to fused kernels to pass over what is not finite; here it has to do so itself
        self._step_supports_amp_scaling = False

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get("orthogonal")]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("orthogonal"):
                self._turned(group)
        return loss

    @torch.no_grad()
    def _turned(self, group: dict[str, Any]) -> None:
        """One step of a group's matrices, those of one shape together."""
        alike: dict[Any, list[torch.Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape, parameter.dtype, parameter.device].append(parameter)
        for (shape, _, _), parameters in alike.items():
            many = max(1, TOGETHER // shape.numel())
            for some in batched(parameters, many):
                moved = orthogonal(torch.stack([self._momentum(parameter) for parameter in some]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, direction in zip(some, moved, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction.to(parameter.dtype), alpha=-size)

    def _momentum(self, parameter: torch.Tensor) -> torch.Tensor:
        """The gradient mixed with those before it (Nesterov's manner)."""
        assert parameter.grad is not None, "only these are asked"
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum: torch.Tensor = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)


def batched(parameters: Sequence[torch.Tensor], many: int) -> Iterator[Sequence[torch.Tensor]]:
    """`many` at a time, in their order; what is left over comes last."""
    for start in range(0, len(parameters), many):
        yield parameters[start : start + many]


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[N, rows, columns]: U Vᵀ of each, nearly."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    made = matrices.mT if tall else matrices
    made = made.bfloat16() if made.device.type == "cuda" else made.float()
    made = made / made.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(STEPS):
        square = made @ made.mT
        made = torch.baddbmm(made, torch.baddbmm(square, square, square, beta=b, alpha=c), made, beta=a)
    return made.mT if tall else made

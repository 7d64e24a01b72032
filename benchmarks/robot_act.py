"""The shape of ACT (Zhao et al., 2023; LeRobot's defaults) at the size of our policies: tokens of the images' grids, the joints
and a latent style through an encoder, one decoder layer whose queries are the steps of a chunk, L1 and a KL term.

What differs from the original: convolutions from scratch in place of a pretrained ResNet-18, a width of 128 in place of 512,
and a learned token a sentence, since ACT knows no words. It learns what our policies learn, and is run beside them.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from vertebra.model.heads.interface import are_known

WIDTH, HEADS, LATENT, KL = 128, 4, 16, 10.0


def distance(made: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """The mean absolute error of what the demonstrations know."""
    known = are_known(goal)
    return ((made - goal).abs() * known).sum() / known.sum()


def _layers(count: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, count)


class Act(nn.Module):
    """Images, joints and a sentence to a chunk of actions."""

    def __init__(self, cameras: list[str], sentences: list[str], proprio: int, chunk: int, dims: int) -> None:
        super().__init__()
        self.cameras, self.sentences, self.shape = cameras, sentences, (chunk, dims)
        wide = (3, 32, 64, 96, WIDTH)
        self.eyes = nn.ModuleList(
            nn.Sequential(
                *(layer for a, b in itertools.pairwise(wide) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()))
            )
            for _ in cameras
        )
        self.place = nn.Parameter(torch.randn(len(cameras), 16, WIDTH) * 0.02)
        self.sentence = nn.Embedding(len(sentences), WIDTH)
        self.joints, self.style = nn.Linear(proprio, WIDTH), nn.Linear(LATENT, WIDTH)
        self.encoder = _layers(4)
        self.queries = nn.Parameter(torch.randn(chunk, WIDTH) * 0.02)
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=True), 1
        )
        self.last = nn.Linear(WIDTH, dims)
        # the style of a demonstration, seen in training alone
        self.asked, self.joints_seen, self.action_seen = (
            nn.Parameter(torch.randn(WIDTH) * 0.02),
            nn.Linear(proprio, WIDTH),
            nn.Linear(dims, WIDTH),
        )
        self.step = nn.Parameter(torch.randn(chunk + 2, WIDTH) * 0.02)
        self.watching, self.latent = _layers(1), nn.Linear(WIDTH, 2 * LATENT)

    def forward(
        self,
        images: list[torch.Tensor],
        proprio: torch.Tensor,
        sentence: torch.Tensor,
        style: torch.Tensor | None = None,
    ) -> torch.Tensor:
        seen = [
            eye(pixels.float() / 127.5 - 1).flatten(2).mT + place
            for eye, pixels, place in zip(self.eyes, images, self.place, strict=True)
        ]
        latent = torch.zeros(len(proprio), LATENT) if style is None else style
        few = torch.stack([self.style(latent), self.joints(proprio), self.sentence(sentence)], 1)
        memory = self.encoder(torch.cat([few, *seen], 1))
        return self.last(self.decoder(self.queries.expand(len(proprio), -1, -1), memory))

    def loss(
        self, images: list[torch.Tensor], proprio: torch.Tensor, sentence: torch.Tensor, goal: torch.Tensor
    ) -> torch.Tensor:
        known = are_known(goal)
        acts = self.action_seen(torch.where(known, goal, 0.0)) * known.any(-1, keepdim=True)
        start = torch.stack([self.asked.expand(len(proprio), -1), self.joints_seen(proprio)], 1)
        mean, log_variance = self.latent(self.watching(torch.cat([start, acts], 1) + self.step)[:, 0]).chunk(2, -1)
        style = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1).mean()
        return distance(self(images, proprio, sentence, style), goal) + KL * kl

"""What training needs: gradients that reach every part and are exact, and new parts as large as tokens."""

from __future__ import annotations

import pytest
import torch

from tests.model.models import (
    batch_of,
    build,
    close,
    page_row,
    pixels,
    shared,
    slots,
    tagged,
    text,
    text_row,
)
from vertebra.errors import ConfigError
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.fresh import new_part, token_rms
from vertebra.model.model import Model
from vertebra.model.projectors import rms
from vertebra.sequence.tokens import TokenSequence


class TestGradients:
    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma2", "tiny-gpt2"])
    def test_reach_encoders_and_projectors_beneath_a_frozen_model(self, name, checkpointing):
        model = build(name, towers=True)
        model.backbone.llm.requires_grad_(False)
        rows = [page_row(0), text_row()]
        row = TokenSequence.join([tagged(4), slots("proprio", 1), slots("action", 6), text(2, weight=1.0)])
        rows.append(
            (
                row,
                {
                    "where": [[0, 5, 10, 10], [-100] * 4, [3, 3, 9, 900], [0, 0, 1000, 1000]],
                    "proprio": torch.rand(1, 7),
                },
            )
        )
        expected = None
        for asked in (False, True)[: 1 + checkpointing]:
            model.zero_grad()
            if asked:
                model.enable_gradient_checkpointing()
            model.train()
            torch.manual_seed(3)  # GPT-2 has dropout
            model(**batch_of(model, rows)).loss.backward()
            gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
            # nothing in these rows lacks a box of its own, and one tower's first block has a key bias that softmax drops
            idle = [n for n, g in gradients.items() if g is None or not bool(g.abs().max() > 0)]
            assert all(
                n.endswith(("boxes.encoder.none", "key.bias", "k_proj.bias", "where.encoder.none")) for n in idle
            ), idle
            assert all(n.startswith("parts.") for n in gradients)
            if expected is not None:
                for parameter, gradient in gradients.items():
                    if gradient is not None:
                        close(gradient, expected[parameter], 1e-4)
            expected = {n: None if g is None else g.clone() for n, g in gradients.items()}

    def test_exact_through_a_whole_model(self):
        """A numeric derivative of the loss along the image's pixels and the projector, in fp64.

        On GPT-2, whose norms stay in fp64; LLaMA's compute in fp32 whatever they are given.
        """
        model = build("tiny-gpt2").eval().double()
        sequence, features = page_row(0)
        batch = batch_of(model, [(sequence, {**features, "image": pixels(1)})])
        images = torch.rand(1, 3, 28, 28, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
        weight = model.parts["image"].projector.fc1.weight
        block = {**batch.features, "image": {**batch.features["image"], "values": images}}

        def loss() -> torch.Tensor:
            return model(**{**batch, "features": block}).loss

        loss().backward()
        for tensor in (images, weight):
            direction = torch.randn_like(tensor)
            slope = float((tensor.grad * direction).sum())
            with torch.no_grad():
                before = tensor.clone()
                ends = []
                for step in (1e-6, -1e-6):
                    tensor.copy_(before + step * direction)
                    ends.append(float(loss()))
                tensor.copy_(before)
            assert abs((ends[0] - ends[1]) / 2e-6 - slope) <= 1e-5 * max(1.0, abs(slope))


class TestSizes:
    @pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gemma2", "tiny-opt-narrow", "tiny-qwen2.5"])
    def test_new_parts_are_as_large_as_tokens(self, name):
        model = shared(name, towers=name == "tiny-llama2")
        row, features = page_row(3)
        row = TokenSequence.join([row, slots("proprio", 1), slots("action", 6)])
        batch = batch_of(model, [(row, {**features, "proprio": torch.randn(1, 7)})])
        embeds, segment = model.embed(batch), batch.slot[..., 0]
        tokens = token_rms(model.backbone)
        for number, segment_name in enumerate(batch.segments):
            ratio = rms(embeds[segment == number]) / tokens
            assert 0.3 < ratio < 3, (segment_name, ratio)

    @pytest.mark.parametrize("kind", ["linear", "gelu2", "gelu3"])
    def test_every_projector_is(self, kind):
        backbone = shared().backbone
        camera = PatchEncoder(16, image_size=28, patch_size=14)
        made = new_part(backbone, camera, kind)(torch.as_tensor(pixels(8, 3)))
        assert 0.3 < rms(made) / token_rms(backbone) < 3

    def test_a_part_of_another_width_is_refused(self):
        narrow, wide = shared("tiny-opt-narrow").backbone, shared().backbone
        part = new_part(narrow, PatchEncoder(16, image_size=28, patch_size=14))
        with pytest.raises(ConfigError, match=r"`image` makes embeddings of width 32; .*`tiny-llama2` has 64 columns"):
            Model(wide, {"image": part})

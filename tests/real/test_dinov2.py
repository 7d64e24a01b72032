"""DINOv2-S/14: the features of the ONNX graph that it was read from, as numbers kept here."""

from __future__ import annotations

import torch
from transformers import Dinov2Model

from vertebra.model import VisionTower

# The last norm's output of the graph for a seeded image, run once by onnxruntime 1.27.
PATCH_0 = [-0.16700947, -0.82675350, 0.00414042, -3.74681354]
PATCH_199 = [-0.01764412, -1.05873561, 0.32525277, -3.98499131]


def test_features_are_those_of_the_graph(dinov2_folder):
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        found = Dinov2Model.from_pretrained(dinov2_folder)(pixels).last_hidden_state
    assert found.shape == (2, 257, 384)
    torch.testing.assert_close(found[0, 1, :4], torch.tensor(PATCH_0), rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1, 200, :4], torch.tensor(PATCH_199), rtol=0, atol=1e-4)


def test_it_is_an_ordinary_tower(dinov2_folder):
    tower = VisionTower.load(dinov2_folder).eval()
    assert (tower.slots, tower.width, tower.blocks) == (256, 384, 11)
    with torch.inference_mode():
        red, blue = (tower(torch.full((1, 3, 224, 224), 0.0).index_fill(1, torch.tensor([c]), 1.0)) for c in (0, 2))
    assert not torch.allclose(red, blue)

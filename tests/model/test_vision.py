"""Vision towers: the library's own features of the chosen block, and nothing that lies behind it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.model.models import pixels
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError
from vertebra.model.encoders.images import Preparation
from vertebra.model.encoders.vision import FusedTowers, VisionTower
from vertebra.model.encoders.vision.tiny import TINY_VISION, tiny_vision_checkpoint, write_tiny_vision

NAMES = list(TINY_VISION)
PROCESSORS = {"tiny-siglip": SiglipImageProcessorPil, "tiny-dinov2": BitImageProcessorPil}


def expected_features(name: str, images: torch.Tensor, block: int) -> torch.Tensor:
    """Through the library's own processor and model."""
    folder = tiny_vision_checkpoint(name)
    processor = PROCESSORS[name].from_pretrained(folder)
    given = processor(
        [image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt", do_resize=False, do_center_crop=False
    )
    model = AutoModel.from_pretrained(folder).eval()
    states = model(**given, output_hidden_states=True).hidden_states
    skipped = 0 if name == "tiny-siglip" else 1 + model.config.num_register_tokens
    return states[block][:, skipped:]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


class TestTower:
    @pytest.mark.parametrize("block", [-2, -1, 1])
    def test_features_of_a_block(self, name, block):
        images = torch.as_tensor(pixels(3))
        tower = VisionTower.load(tiny_vision_checkpoint(name), block=block)
        made = tower(images)
        assert made.shape == (3, tower.slots, tower.width)
        assert torch.allclose(made, expected_features(name, images, block), atol=1e-5)

    def test_what_lies_behind_the_block_is_gone_and_all_else_learns(self, name):
        tower = VisionTower.load(tiny_vision_checkpoint(name))
        assert tower.blocks == 2
        tower(torch.as_tensor(pixels(2))).square().sum().backward()
        idle = [n for n, p in tower.named_parameters() if p.grad is None]
        assert idle == []
        assert not any(
            "head" in n or "post_layernorm" in n or n.endswith("mask_token") for n, _ in tower.named_parameters()
        )

    def test_recomputed_gradients_are_the_same(self, name):
        tower, images = VisionTower.load(tiny_vision_checkpoint(name)), torch.as_tensor(pixels(2))
        gradients = []
        for tower.recompute in (False, True):
            tower.zero_grad()
            tower(images).square().sum().backward()
            gradients.append([p.grad.clone() for p in tower.parameters()])
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*gradients, strict=True))

    def test_the_shipped_preparation(self):
        siglip, dino = (VisionTower.load(tiny_vision_checkpoint(name)) for name in ("tiny-siglip", "tiny-dinov2"))
        assert siglip.preparation == Preparation(size=28)
        assert dino.preparation == Preparation(size=28, fit="crop", shorter=32)
        assert siglip.mean == (0.5, 0.5, 0.5)
        assert dino.std == (0.229, 0.224, 0.225)
        image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        given = BitImageProcessorPil.from_pretrained(tiny_vision_checkpoint("tiny-dinov2"))(image, return_tensors="pt")[
            "pixel_values"
        ]
        ours = torch.as_tensor(dino.prepare([image])) / 255
        ours = (ours - torch.tensor(dino.mean)[:, None, None]) / torch.tensor(dino.std)[:, None, None]
        assert torch.allclose(ours, given.float(), atol=1e-5)

    def test_built_again_from_its_settings(self, name):
        tower = VisionTower.load(tiny_vision_checkpoint(name))
        again = VisionTower(**json.loads(json.dumps(tower.settings())))
        again.load_state_dict(tower.state_dict())
        images = torch.as_tensor(pixels(2))
        assert torch.equal(again(images), tower(images))
        assert again.preparation == tower.preparation
        assert "block 2 of 3, from 28 × 28 pixels" in again.about()

    def test_another_image_size(self, name, tmp_path):
        """DINOv2 ships positions of 518 pixels and a processor that makes 224: the processor decides."""
        tower = VisionTower.load(tiny_vision_checkpoint(name), image_size=42)
        assert (tower.slots, tower.preparation.size) == (9, 42)
        assert tower.preparation.shorter in (None, 48)
        images = tower.sample(2, torch.Generator().manual_seed(0))
        model = AutoModel.from_pretrained(tiny_vision_checkpoint(name)).eval()
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (tower.mean, tower.std))
        options = {"interpolate_pos_encoding": True} if name == "tiny-siglip" else {}
        states = model(pixel_values=(images / 255 - mean) / std, output_hidden_states=True, **options).hidden_states
        assert torch.allclose(tower(images), states[-2][:, tower.skipped :], atol=1e-5)
        again = VisionTower(**json.loads(json.dumps(tower.settings())))
        assert again.slots == 9
        large = write_tiny_vision(name, tmp_path / "large", image_size=56)
        shipped = json.loads((large / "preprocessor_config.json").read_text())
        small = {"height": 28, "width": 28}
        shipped |= {"size": small} if name == "tiny-siglip" else {"crop_size": small, "size": {"shortest_edge": 32}}
        (large / "preprocessor_config.json").write_text(json.dumps(shipped))
        tower = VisionTower.load(large)
        assert (tower.image_size, tower.slots) == (28, 4)
        assert tower(torch.as_tensor(pixels(1))).shape == (1, 4, tower.width)
        with pytest.raises(ConfigError, match=r"images of 30 pixels do not divide"):
            VisionTower.load(tiny_vision_checkpoint(name), image_size=30)

    def test_pooled(self, name):
        """Each slot holds the features of a square of patches, row by row; a plain loop says which."""
        images = torch.as_tensor(pixels(3))
        whole = VisionTower.load(tiny_vision_checkpoint(name)).eval()
        across = round(whole.slots**0.5)
        pool = 2
        tower = VisionTower.load(tiny_vision_checkpoint(name), pool=pool).eval()
        assert (tower.slots, tower.width) == (whole.slots // 4, whole.width * 4)
        patches, made = whole(images), tower(images)
        assert made.shape == (3, tower.slots, tower.width)
        for slot in range(tower.slots):
            row, column = divmod(slot, across // pool)
            own = [patches[:, (pool * row + i) * across + pool * column + j] for i in range(pool) for j in range(pool)]
            assert torch.equal(made[:, slot], torch.cat(own, -1))
        assert "2 × 2 patches a slot" in tower.about()
        assert torch.equal(VisionTower(**tower.settings()).eval().load_state_dict(tower.state_dict()) and made, made)
        with pytest.raises(ConfigError, match=f"pool={across + 1}"):
            VisionTower.load(tiny_vision_checkpoint(name), pool=across + 1)

    def test_half_precision(self, name):
        tower = VisionTower.load(tiny_vision_checkpoint(name)).to(torch.bfloat16)
        assert tower(torch.as_tensor(pixels(1))).dtype == torch.bfloat16

    def test_a_whole_siglip_gives_its_vision_half(self, tmp_path):
        from transformers import SiglipConfig, SiglipModel

        vision = AutoModel.from_pretrained(tiny_vision_checkpoint("tiny-siglip")).config.to_dict()
        text = {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 9,
        }
        whole = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
        whole.save_pretrained(tmp_path)
        tower = VisionTower.load(tmp_path)
        expected = whole.eval().vision_model.embeddings.patch_embedding.weight
        assert torch.equal(tower.embeddings.patch_embedding.weight, expected)


class TestFused:
    def test_side_by_side(self):
        towers = [VisionTower.load(tiny_vision_checkpoint(name)) for name in NAMES]
        fused = FusedTowers(towers)
        images = torch.as_tensor(pixels(3))
        assert torch.equal(fused(images), torch.cat([tower(images) for tower in towers], -1))
        assert (fused.width, fused.slots) == (32 + 48, 4)
        again = FusedTowers(**json.loads(json.dumps(fused.settings())))
        again.load_state_dict(fused.state_dict())
        assert torch.equal(again(images), fused(images))
        assert again.pretrained
        assert " + dinov2_with_registers" in fused.about()

    def test_towers_that_cut_differently(self, tmp_path):
        other = write_tiny_vision("tiny-dinov2", tmp_path / "finer", patch_size=7)
        with pytest.raises(
            ConfigError, match=r"must cut an image alike.*28 pixels, 4 patches, .*28 pixels, 16 patches"
        ):
            FusedTowers([VisionTower.load(tiny_vision_checkpoint("tiny-siglip")), VisionTower.load(other)])

    def test_one_tower_is_no_fusion(self):
        with pytest.raises(ConfigError, match=r"1 towers to fuse"):
            FusedTowers([VisionTower.load(tiny_vision_checkpoint("tiny-siglip"))])


class TestRefusals:
    def test_a_block_that_is_not_there(self):
        with pytest.raises(ConfigError, match=r"block -4 of a tower of 3; expected 1..3, or -3..-1"):
            VisionTower.load(tiny_vision_checkpoint("tiny-siglip"), block=-4)

    def test_another_kind_of_model(self):
        from vertebra.backbone.tiny import tiny_checkpoint

        with pytest.raises(CheckpointError, match=r"of model type `llama`, which is no image encoder known here"):
            VisionTower.load(tiny_checkpoint("tiny-llama2"))

    def test_damaged_weights(self, tmp_path):
        folder = write_tiny_vision("tiny-siglip", tmp_path / "cut")
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=r"is truncated"):
            VisionTower.load(folder)

    def test_missing_tensors(self, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = write_tiny_vision("tiny-dinov2", tmp_path / "less")
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("embeddings.cls_token")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"lacks 1 tensors of its image encoder"):
            VisionTower.load(folder)

    def test_images_of_another_shape(self):
        tower = VisionTower.load(tiny_vision_checkpoint("tiny-siglip"))
        assert tower.faults(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))[0][1].startswith(
            "images have the shape (3, 32, 32)"
        )
        assert tower.faults(torch.zeros(2, 1, 28, 28))[0][0] is None
        assert tower.faults(torch.zeros(2, 3, 28, 28, dtype=torch.int64))[0][1].startswith("images are torch.int64")
        one = torch.zeros(3, 3, 28, 28)
        one[1, 0, 0, 0] = 37.0
        one[2, 0, 0, 0] = float("nan")
        assert [item for item, _ in tower.faults(one)] == [1, 2]

    def test_statistics_that_cannot_be(self):
        config = VisionTower.load(tiny_vision_checkpoint("tiny-siglip")).config
        with pytest.raises(ConfigError, match=r"expected three numbers each, and std above 0"):
            VisionTower(config, std=(0.5, 0.0, 0.5))


class TestTiny:
    def test_the_same_seed_gives_the_same_bytes(self, tmp_path, name):
        state = torch.get_rng_state()
        first, again = (write_tiny_vision(name, tmp_path / str(number)) for number in range(2))
        other = write_tiny_vision(name, tmp_path / "other", seed=1)
        files = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
        assert files[0] == files[1] != files[2]
        assert torch.equal(state, torch.get_rng_state())

    def test_names_and_settings(self, tmp_path):
        with pytest.raises(UnknownNameError, match=r"tiny vision checkpoint `tiny-sigclip`.*`tiny-siglip`"):
            tiny_vision_checkpoint("tiny-sigclip")
        with pytest.raises(UnknownNameError, match=r"config setting `patchsize`.*`patch_size`"):
            write_tiny_vision("tiny-siglip", tmp_path / "a", patchsize=7)
        write_tiny_vision("tiny-siglip", tmp_path / "a")
        with pytest.raises(CheckpointError, match=r"not empty"):
            write_tiny_vision("tiny-siglip", tmp_path / "a")

    def test_alive(self, name):
        """Different images give different features, of ordinary size."""
        made = VisionTower.load(tiny_vision_checkpoint(name))(torch.as_tensor(pixels(4)))
        assert 0.2 < float(made.detach().std(0).mean()) < 5

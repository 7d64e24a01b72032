"""Patches, boxes, vectors, projectors: what they compute against plain code, and what they refuse."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.model.models import batch_of, boxes, pixels, shared, slots, text
from vertebra.errors import ConfigError, DataError, InjectionError, UnknownNameError
from vertebra.model.encoders.boxes import BoxTables, BoxWaves
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.patches import PatchEncoder
from vertebra.model.encoders.queries import Queries
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.projectors import Projector, bring_to_size, rms
from vertebra.sequence.tokens import TokenSequence


class TestPatches:
    def test_one_patch_a_slot_row_by_row(self):
        encoder = PatchEncoder(8, image_size=28, patch_size=7)
        assert (encoder.slots, encoder.width) == (16, 8)
        image = torch.as_tensor(pixels(1))
        made = encoder(image)
        weight, bias = encoder.cut.weight.flatten(1), encoder.cut.bias
        for row in range(4):
            for column in range(4):
                patch = image[0, :, row * 7 : row * 7 + 7, column * 7 : column * 7 + 7]
                expected = weight @ (patch.flatten() / 255 * 2 - 1) + bias
                assert torch.allclose(made[0, row * 4 + column], expected, atol=1e-5)

    def test_bytes_and_floats_are_the_same_image(self):
        encoder = PatchEncoder(8, image_size=28, patch_size=14)
        image = torch.as_tensor(pixels(2))
        assert torch.equal(encoder(image), encoder(image.float() / 255))

    def test_the_document_form_has_196(self):
        assert PatchEncoder().slots == 196

    @pytest.mark.parametrize("sizes", [{"image_size": 28, "patch_size": 16}, {"image_size": 8}, {"patch_size": 0}])
    def test_sizes_that_do_not_divide(self, sizes):
        with pytest.raises(ConfigError, match=r"in patches of"):
            PatchEncoder(**sizes)

    def test_a_preparation_of_another_size(self):
        with pytest.raises(ConfigError, match=r"makes images of 32 pixels, and the encoder takes 224"):
            PatchEncoder(preparation={"size": 32})


class TestBoxes:
    def test_tables_look_up_six_numbers(self):
        encoder = BoxTables(4)
        left, top, right, bottom = box = [10, 20, 110, 1000]
        expected = [encoder.x, encoder.y, encoder.x, encoder.y, encoder.h, encoder.w]
        numbers = [left, top, right, bottom, bottom - top, right - left]
        rows = [table.weight[number] for table, number in zip(expected, numbers, strict=True)]
        assert torch.equal(encoder(torch.tensor([box]))[0, 0], torch.cat(rows))

    def test_waves_are_sines_and_cosines(self):
        encoder = BoxWaves(3)
        left, top, right, bottom = box = [10.5, 20, 110, 1000]
        expected = []
        for number in (left, top, right, bottom, bottom - top, right - left):
            for wave in (math.sin, math.cos):
                expected += [wave(number / 1000 * math.pi * 2**octave) for octave in range(3)]
        assert torch.allclose(encoder(torch.tensor([box]))[0, 0], torch.tensor(expected), atol=1e-6)

    def test_waves_in_half_precision_still_tell_neighbors_apart(self):
        encoder = BoxWaves(8).to(torch.bfloat16)
        near = torch.tensor([[500, 500, 600, 600], [501, 500, 601, 600]])
        first, second = encoder(near)[:, 0]
        assert first.dtype == torch.bfloat16
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("encoder", [BoxTables(4), BoxWaves(4)])
    def test_no_box(self, encoder):
        values = torch.tensor([[-100] * 4, [0, 0, 0, 0], [1, 2, 3, 4]])
        made = encoder(values)
        assert torch.equal(made[0, 0], encoder.none)
        assert not torch.equal(made[1, 0], encoder.none)
        assert encoder.absent(values).tolist() == [[True], [False], [False]]
        added = Part(encoder, Projector("linear", encoder.width, 6), place="added")
        instead = Part(encoder, Projector("linear", encoder.width, 6))
        assert not added(values)[0].any()
        assert instead(values)[0].any()

    def test_prepared_from_lists(self):
        encoder = BoxTables(4)
        made = encoder.prepare([[0, 1, 2, 3], None, (5.0, 6.0, 7.0, 8.0)])
        assert made.tolist() == [[0, 1, 2, 3], [-100] * 4, [5, 6, 7, 8]]
        assert made.dtype == np.int64
        assert BoxWaves(4).prepare([[0.5, 1, 2, 3]]).dtype == np.float32
        assert encoder.prepare([]).shape == (0, 4)

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ([0, 0, 1001, 5], "leaves 0..1000; scale boxes by the page's width and height"),
            ([-1, 0, 10, 5], "leaves 0..1000"),
            ([-100, -100, -100, 5], "leaves 0..1000"),
            ([10, 0, 5, 5], "is upside down; sort the corners"),
            ([0, 9, 5, 5], "is upside down"),
            ([0, float("nan"), 5, 5], "is not a number"),
            ([0, 0.5, 5, 5], "has fractions; tables need whole numbers"),
        ],
    )
    def test_boxes_that_cannot_be(self, box, message):
        model = shared()
        with pytest.raises(DataError, match=f"box 1: .*{message}"):
            model.prepare({"boxes": [[0, 0, 1, 1], box]})
        if any(number != number for number in box):
            return  # NaN is found by `collate` already
        row = TokenSequence.join([text(2), slots("boxes", 2), text(2, weight=1.0)])
        batch = batch_of(model, [(row, {"boxes": [[0.0] * 4] * 2}), (row, {"boxes": [[0.0, 0, 1, 1], box]})])
        with pytest.raises(InjectionError, match=f"row 1, item 1 of `boxes` .*{message}"):
            model.encode(batch)

    def test_one_box_fewer_than_words(self):
        model = shared()
        row = TokenSequence.join([text(2), slots("boxes", 3), text(2, weight=1.0)])
        with pytest.raises(InjectionError, match=r"row 0 has 2 items of `boxes` for 3 slots"):
            batch_of(model, [(row, {"boxes": boxes(2)})])

    def test_boxes_of_three_numbers(self):
        model = shared()
        row = TokenSequence.join([text(2), slots("boxes", 1), text(2, weight=1.0)])
        with pytest.raises(InjectionError, match=r"`boxes`: boxes have the shape \(1, 3\); expected \[boxes, 4\]"):
            model.encode(batch_of(model, [(row, {"boxes": [[1, 2, 3]]})]))
        with pytest.raises(DataError, match=r"lists of four numbers"):
            model.prepare({"boxes": [[1, 2, 3]]})

    def test_settings_that_cannot_be(self):
        with pytest.raises(ConfigError, match=r"tables of 1000 rows"):
            BoxTables(4, steps=1000)
        with pytest.raises(ConfigError, match=r"expected 1 to 16"):
            BoxWaves(0)


class TestVectors:
    def test_handed_on(self):
        encoder = VectorEncoder(3)
        values = torch.rand(2, 3)
        assert torch.equal(encoder(values)[:, 0], values)
        assert encoder.prepare([[1, 2, 3]]).dtype == np.float32
        assert encoder.sample(4, torch.Generator()).shape == (4, 3)

    def test_another_width_and_nan(self):
        model = shared()
        row = TokenSequence.join([text(2), slots("proprio", 1), text(2, weight=1.0)])
        with pytest.raises(
            InjectionError, match=r"`proprio`: vectors have the shape \(1, 6\); expected \[vectors, 7\]"
        ):
            model.encode(batch_of(model, [(row, {"proprio": [[0.0] * 6]})]))
        with pytest.raises(DataError, match=r"lists of 7 numbers"):
            model.prepare({"proprio": [[1, 2]]})
        batch = batch_of(model, [(row, {"proprio": [[0.0] * 7]})])
        batch.features["proprio"]["values"][0, 3] = float("nan")
        with pytest.raises(InjectionError, match=r"row 0, item 0 of `proprio` holds NaN"):
            model.encode(batch)

    def test_width_zero(self):
        with pytest.raises(ConfigError, match=r"vectors of width 0"):
            VectorEncoder(0)


class TestProjectors:
    @pytest.mark.parametrize(("kind", "layers"), [("linear", 1), ("gelu2", 2), ("gelu3", 3)])
    def test_layers(self, kind, layers):
        projector = Projector(kind, 6, 10)
        assert [name for name, _ in projector.named_children()] == ["fc1", "fc2", "fc3"][:layers]
        if kind == "gelu3":
            assert projector.fc1.out_features == 24
        values = torch.rand(2, 3, 6)
        expected = values
        for number in range(1, layers + 1):
            layer = getattr(projector, f"fc{number}")
            expected = layer(expected if number == 1 else torch.nn.functional.gelu(expected))
        assert torch.equal(projector(values), expected)
        assert projector(values.double()).dtype == torch.float32

    def test_brought_to_size(self):
        projector, values = Projector("gelu2", 6, 10), torch.rand(4, 3, 6)
        before = rms(projector(values))
        assert bring_to_size(projector, values, 0.25) == pytest.approx(before)
        assert rms(projector(values)) == pytest.approx(0.25, rel=1e-4)

    def test_nothing_to_measure(self):
        projector = Projector("linear", 6, 10)
        torch.nn.init.zeros_(projector.fc1.weight)
        torch.nn.init.zeros_(projector.fc1.bias)
        with pytest.raises(ConfigError, match=r"RMS 0.0 from sample features"):
            bring_to_size(projector, torch.rand(1, 1, 6), 1.0)

    def test_wrong_names_and_sizes(self):
        with pytest.raises(UnknownNameError, match=r"projector `gelu`\. Did you mean .*`gelu2`"):
            Projector("gelu", 6, 10)
        with pytest.raises(ConfigError, match=r"from width 0 to 10"):
            Projector("linear", 0, 10)
        with pytest.raises(UnknownNameError, match=r"place `slot`.*`slots`"):
            Part(VectorEncoder(2), Projector("linear", 2, 3), place="slot")  # type: ignore[arg-type]


class TestQueries:
    def test_settings(self):
        with pytest.raises(ConfigError, match=r"0 queries of width 4"):
            Queries(0, 4)
        with pytest.raises(UnknownNameError, match=r"start of queries `zero`.*`zeros`"):
            Queries(2, 4, start="zero")  # type: ignore[arg-type]
        assert Queries(2, 4, start="zeros").weight.requires_grad


@pytest.mark.parametrize(
    "encoder",
    [PatchEncoder(8, image_size=28, patch_size=14), BoxTables(4), BoxWaves(4), VectorEncoder(3)],
    ids=lambda encoder: encoder.kind,
)
def test_every_encoder_keeps_its_promises(encoder):
    """A sample has no faults, comes out as slots × width, and the settings build the same again."""
    values = encoder.sample(5, torch.Generator().manual_seed(1))
    assert not encoder.faults(values)
    assert encoder(values).shape == (5, encoder.slots, encoder.width)
    again = type(encoder)(**json.loads(json.dumps(encoder.settings())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(values), encoder(values))
    assert encoder.about()
    assert not encoder.pretrained

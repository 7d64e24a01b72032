"""Rows of a batch: mixed, padded, packed, of several segments, with queries and free rules; and those that are wrong."""

from __future__ import annotations

import pytest
import torch

from tests.model.models import (
    PATCHES,
    Calls,
    all_logits,
    batch_of,
    close,
    mixed_rows,
    page_row,
    pixels,
    shared,
    slots,
    tagged,
    text,
    text_row,
)
from vertebra.backbone.registry import load_backbone
from vertebra.errors import InjectionError, SequenceError, TooLongError, UnknownNameError
from vertebra.model.fresh import new_queries
from vertebra.model.model import Model
from vertebra.sequence.batch import Batch
from vertebra.sequence.masks import plan_attention
from vertebra.sequence.packing import pack_sequences
from vertebra.sequence.probe import mask_takes_effect
from vertebra.sequence.tokens import Role, TokenSequence


class TestRows:
    def test_batch_is_single_and_padding_changes_nothing(self):
        model = shared()
        alone = [all_logits(model, batch_of(model, [row]))[0] for row in mixed_rows()]
        for side in ("left", "right"):
            batch = batch_of(model, mixed_rows(), side=side)
            together = all_logits(model, batch)
            for row, expected in enumerate(alone):
                close(together[row][batch.attention_mask[row].bool()], expected)

    def test_packed_is_alone(self):
        model = shared()
        three = [page_row(0), page_row(2, images=2), text_row()]
        packing = pack_sequences([row for row, _ in three], 200, features=[features for _, features in three])
        assert len(packing) == 1
        batch = model.collate(packing.rows, packing.features)
        together = all_logits(model, batch)[0]
        for place, member in enumerate(packing.members[0]):
            expected = all_logits(model, batch_of(model, [three[member]]))[0]
            close(together[batch.document[0] == place], expected)

    def test_text_only_costs_nothing(self):
        model = shared()
        batch = batch_of(model, mixed_rows())
        with Calls(model.parts["image"].encoder) as image, Calls(model.parts["boxes"].encoder) as boxes:
            model(**batch)
            assert image.items == [3]  # 1 + 0 + 2 + 0 images, one call
            assert boxes.items == [7]
            model(**batch_of(model, [text_row()]))
        assert image.items == [3]

    def test_empty_items_are_none(self):
        model = shared()
        sequence, _ = text_row()
        none = {"values": torch.zeros(0, 3, 28, 28, dtype=torch.uint8), "rows": torch.zeros(0, dtype=torch.long)}
        batch = Batch({**model.collate([sequence]), "features": {"image": none}})
        with Calls(model.parts["image"].encoder) as camera:
            assert torch.equal(model(**batch).loss, model(**model.collate([sequence])).loss)
        assert camera.items == []
        batch = Batch({**model.collate([page_row(0, lines=0)[0]]), "features": {"image": none}})
        with pytest.raises(InjectionError, match=r"row 0 has slots of `image`, and the batch no item"):
            model(**batch)

    def test_two_cameras_share_one_call_and_may_be_distinguished(self):
        model = shared()
        row = TokenSequence.join(
            [text(1), slots("image", PATCHES), slots("image:wrist", PATCHES), text(3), text(1, weight=1.0)]
        )
        batch = batch_of(model, [(row, {"image": pixels(1), "image:wrist": pixels(1, 5)})])
        swapped = batch_of(model, [(row, {"image": pixels(1, 5), "image:wrist": pixels(1)})])
        with Calls(model.parts["image"].encoder) as camera:
            first = model(**batch).loss
        assert camera.items == [2]
        assert not torch.equal(first, model(**swapped).loss)

    def test_another_image_or_box_changes_the_answer(self):
        model = shared()
        logits = [all_logits(model, batch_of(model, [page_row(0)]))[0, -1]]
        sequence, features = page_row(0)
        for change in ({"image": pixels(1, 77)}, {"boxes": features["boxes"][::-1].copy()}):
            logits.append(all_logits(model, batch_of(model, [(sequence, {**features, **change})]))[0, -1])
        assert float((logits[0] - logits[1]).abs().max()) > 1e-3
        assert float((logits[0] - logits[2]).abs().max()) > 1e-3

    def test_added_boxes_leave_tokens_without_one_alone(self):
        model = shared()
        row = tagged(6)
        nowhere = batch_of(model, [(row, {"where": [[-100] * 4] * 6})])
        plain = model.backbone.embed_input_ids(nowhere.input_ids)
        assert torch.equal(model.embed(nowhere), plain)
        some = batch_of(model, [(row, {"where": [[0, 0, 10, 10], *[[-100] * 4] * 5]})])
        assert (model.embed(some) != plain).any(-1).tolist() == [[True] + [False] * 5]

    def test_supervised_tokens_of_an_added_box_keep_their_targets(self):
        model = shared()
        row = tagged(6).with_vectors(weight=torch.ones(6).numpy())
        batch = batch_of(model, [(row, {"where": [[0, 0, 10, 10]] * 6})])
        assert torch.equal(batch.targets, batch.input_ids)
        assert torch.isfinite(model(**batch).loss)


class TestQueriesAndMasks:
    def test_action_slots_see_each_other_both_ways_in_one_pass(self):
        model = shared()
        row = TokenSequence.join([page_row(0)[0], slots("action", 6, block=1, role=Role.ACTION), text(1, weight=1.0)])
        batch = batch_of(model, [(row, page_row(0)[1])])
        embeds = model.embed(batch)
        first = row.segments.index("action")
        at = (batch.slot[0, :, 0] == first).nonzero()[:, 0]
        assert torch.equal(embeds[0, at], model.parts["action"].weight)

        def forward(inputs):
            made = plan_attention(batch, model.backbone.attention_facts)
            return model.backbone(inputs_embeds=inputs, **made.kwargs).logits

        assert plan_attention(batch, model.backbone.attention_facts).form == "4d"
        assert mask_takes_effect(forward, embeds.detach(), batch)
        close(model(**batch, return_loss=False).logits, forward(embeds))

    def test_two_chunks_in_a_row_use_the_queries_again(self):
        model = shared()
        chunk = slots("action", 6)
        row = TokenSequence.join([text(2), chunk, text(2), chunk, text(1, weight=1.0)])
        embeds = model.embed(batch_of(model, [(row, {})]))
        assert torch.equal(embeds[0, 2:8], embeds[0, 10:16])

    def test_a_free_rule_reaches_the_model(self):
        """Text that is blind to the image gives the same answer for every image."""
        model = shared()

        def blind(query, key):
            return ~key.fills("image") | query.fills("image")

        answers = []
        for seed in (0, 5):
            sequence, features = page_row(0)
            batch = batch_of(model, [(sequence, {**features, "image": pixels(1, seed)})])
            answers.append(model(**batch, attend=blind, return_loss=False).logits[0, -1])
        assert torch.equal(*answers)

    def test_fixed_queries_are_no_parameters(self):
        backbone = load_backbone("tiny-llama2")
        model = Model(backbone, {"action": new_queries(backbone, 3, start="zeros", learned=False)})
        assert not list(model.parts.parameters())
        row = TokenSequence.join([text(2), slots("action", 3), text(1, weight=1.0)])
        embeds = model.embed(batch_of(model, [(row, {})]))
        assert not embeds[0, 2:5].any()


class TestWrongBatches:
    def test_a_segment_that_nobody_knows(self):
        model = shared()
        row = TokenSequence.join([text(2), slots("imag", PATCHES), text(1, weight=1.0)])
        with pytest.raises(UnknownNameError, match=r"segment `imag`\. Did you mean `image`.*raw items"):
            model(**batch_of(model, [(row, {"imag": pixels(1)})]))
        with pytest.raises(UnknownNameError, match=r"segment `imag`.*Row 0 has slots"):
            model(**model.collate([row]))

    def test_a_row_without_its_image(self):
        model = shared()
        with pytest.raises(InjectionError, match=r"row 0 has slots of `image`, and the batch no item of it; row 2"):
            model(**model.collate([page_row(0, lines=0)[0], text_row()[0], page_row(1, lines=0)[0]]))
        with pytest.raises(InjectionError, match=r"row 1 has 4 slots of `image` and no item"):
            batch_of(model, [page_row(0, lines=0), (page_row(1, lines=0)[0], {})])

    def test_three_and_five_for_four_and_four(self):
        model = shared()
        batch = batch_of(model, [page_row(0, lines=4), page_row(1, lines=4)])
        batch.features["boxes"]["rows"] = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
        with pytest.raises(InjectionError, match=r"row 0 has 3 items of `boxes`.* for 4 slots; row 1 has 5 items"):
            model(**batch)

    def test_items_for_queries(self):
        model = shared()
        row = TokenSequence.join([text(2), slots("action", 6), text(1, weight=1.0)])
        with pytest.raises(
            InjectionError, match=r"`action` has raw items, and this model fills its slots with learned"
        ):
            model(**batch_of(model, [(row, {"action": torch.rand(6, 3)})]))

    def test_a_batch_on_another_device(self):
        model, batch = shared(), batch_of(shared(), [page_row(0)])
        with pytest.raises(SequenceError, match=r"the batch is on meta and the model on cpu: batch.to\(model.device\)"):
            model(**batch.to("meta"))
        features = {
            **batch.features,
            "image": {**batch.features["image"], "values": torch.empty(1, 3, 28, 28, device="meta")},
        }
        with pytest.raises(InjectionError, match=r"`image` is on meta and the model on cpu"):
            model(**{**batch, "features": features})

    def test_a_prompt_longer_than_the_model(self):
        model = shared()
        row = TokenSequence.join([slots("image", 100 * PATCHES), text(200, weight=1.0)])
        with pytest.raises(
            TooLongError, match=r"600 positions \(200 tokens, 400 slots of image\), 88 more than .* 512"
        ):
            batch_of(model, [(row, {"image": pixels(100)})])
        batch = model.collate([row], [{"image": pixels(100)}], max_length=None)
        with pytest.raises(TooLongError, match=r"600 positions"):
            model(**batch)

    def test_a_packed_row_longer_than_the_model_equals_its_samples(self):
        model = shared()
        samples = [text(n, weight=1.0) for n in (300, 200, 280)]
        packing = pack_sequences(samples, 800)
        assert [len(row) for row in packing.rows] == [780], "longer than the 512 positions of the model"
        with torch.no_grad():
            whole = model(**model.collate(packing.rows), logits_to_keep=0).logits[0]
            alone = [model(**model.collate([row]), logits_to_keep=0).logits[0] for row in samples]
        torch.testing.assert_close(whole, torch.cat([alone[i] for i in packing.members[0]]), atol=1e-4, rtol=1e-4)

    def test_unknown_keys_and_halves_of_supervision(self):
        model = shared()
        ids = torch.tensor([[1, 2, 3]])
        with pytest.raises(UnknownNameError, match=r"batch key `labels`.*Give `targets`"):
            model(input_ids=ids, labels=ids)
        with pytest.raises(UnknownNameError, match=r"batch key `pixel_values`.*Raw items go into `features`"):
            model(input_ids=ids, pixel_values=ids)
        with pytest.raises(SequenceError, match=r"`targets` and `weights` come together"):
            model(input_ids=ids, targets=ids)
        with pytest.raises(SequenceError, match=r"a batch needs `input_ids`"):
            model(attention_mask=ids)

    def test_positions_that_do_not_exist(self):
        model, batch = shared(), batch_of(shared(), [page_row(0)])
        with pytest.raises(SequenceError, match=r"positions \(0, 99\) lie outside"):
            model(**batch, positions=(torch.tensor([0]), torch.tensor([99])))
        with pytest.raises(SequenceError, match=r"expected two lists of as many whole numbers"):
            model(**batch, positions=(torch.tensor([0.0]), torch.tensor([0])))
        with pytest.raises(SequenceError, match=r"both say which logits"):
            model(**batch, positions=(torch.tensor([0]), torch.tensor([0])), logits_to_keep=1)

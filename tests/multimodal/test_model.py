"""`MultimodalModel.forward`: loss, logits where asked, caches, gradients; against plain computations on the same tensors."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from tests.multimodal.models import (
    PATCHES,
    Calls,
    batch_of,
    build,
    page_row,
    pixels,
    shared,
    slots,
    tagged,
    text,
    text_row,
)
from vertebra.backbone.registry import load_backbone
from vertebra.errors import ConfigError, InjectionError, SequenceError, TooLongError, UnknownNameError
from vertebra.multimodal.fresh import new_part, new_queries, token_rms
from vertebra.multimodal.model import MultimodalModel
from vertebra.multimodal.patches import PatchEncoder
from vertebra.multimodal.projectors import rms
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import count_items, sequence_loss
from vertebra.sequence.masks import plan
from vertebra.sequence.probe import mask_takes_effect
from vertebra.sequence.tokens import Role, TokenSequence


def rows():
    return [page_row(0), text_row(), page_row(2, images=2, lines=1), page_row(4, images=0)]


def close(got, expected, bound=1e-5):
    assert got.shape == expected.shape
    assert float((got - expected).detach().abs().max()) <= bound * max(1.0, float(expected.detach().abs().max()))


@torch.no_grad()
def all_logits(model: MultimodalModel, batch: Batch) -> torch.Tensor:
    return model(**batch, return_loss=False).logits


class TestLossAndLogits:
    def test_loss_is_that_of_the_full_logits(self):
        model, batch = shared(), batch_of(shared(), rows())
        logits = all_logits(model, batch)
        out = model(**batch)
        assert out.logits is None
        assert out.hidden_states is None
        assert out.past_key_values is None
        expected = sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
        close(out.loss, expected)
        close(model(**batch, num_items_in_batch=40).loss, expected * count_items(batch) / 40)
        close(model(**batch, num_items_in_batch=torch.tensor(40)).loss, expected * count_items(batch) / 40)

    def test_weights_are_honored(self):
        model = shared()
        batch = batch_of(model, [page_row(0)])
        halved = Batch({**batch, "weights": batch.weights * torch.rand(batch.weights.shape)})
        expected = sequence_loss(all_logits(model, batch), halved.targets, halved.weights, document=halved.document)
        close(model(**halved).loss, expected)

    def test_logits_only_where_asked(self):
        model, batch = shared(), batch_of(shared(), rows())
        full = all_logits(model, batch)
        loss = model(**batch).loss
        real = batch.attention_mask.bool()
        everything = model(**batch, logits_to_keep=0)
        close(everything.logits[real], full[real])
        close(everything.loss, loss)
        columns = torch.tensor([0, 3, 5])
        for keep, expected in ((2, full[:, -2:]), (columns, full[:, columns])):
            out = model(**batch, logits_to_keep=keep)
            close(out.logits, expected)
            close(out.loss, loss)
            close(model(**batch, logits_to_keep=keep, return_loss=False).logits, expected)
        at = torch.tensor([0, 3, 3]), torch.tensor([4, 0, 2])
        out = model(**batch, positions=at)
        close(out.logits, full[at])
        close(out.loss, loss)
        close(model(**batch, positions=at, return_loss=False).logits, full[at])
        none = torch.tensor([], dtype=torch.long)
        assert model(**batch, positions=(none, none)).logits.shape == (0, full.shape[-1])

    def test_the_head_runs_on_the_supervised_positions_alone(self):
        model, batch = shared(), batch_of(shared(), rows())
        with Calls(model.backbone.llm.get_output_embeddings()) as head:
            seen = []
            handle = model.backbone.llm.get_output_embeddings().register_forward_hook(
                lambda _, given, made: seen.append(tuple(made.shape[:2]))
            )
            model(**batch)
            handle.remove()
        assert len(head.items) == 1
        assert seen == [(1, int(count_items(batch)))]

    def test_another_thread_on_the_same_model_gets_its_own_logits(self):
        """While one thread's head runs on chosen positions, another's is untouched."""
        model, batch = shared(), batch_of(shared(), rows())
        expected, from_other = all_logits(model, batch), []

        def other(*_):
            if not from_other and threading.current_thread() is threading.main_thread():
                from_other.append(None)
                worker = threading.Thread(target=lambda: from_other.append(all_logits(model, batch)))
                worker.start()
                worker.join()

        handle = model.backbone.layers[0].register_forward_pre_hook(other)
        model(**batch)
        handle.remove()
        close(from_other[1], expected)

    def test_hidden_states_on_request(self):
        model, batch = shared(), batch_of(shared(), rows())
        out = model(**batch, output_hidden_states=True)
        assert len(out.hidden_states) == len(model.backbone.layers) + 1
        assert {tuple(state.shape) for state in out.hidden_states} == {(4, batch.length, model.backbone.embed_dim)}
        head = model.backbone.llm.get_output_embeddings()
        close(head(out.hidden_states[-1]), all_logits(model, batch))

    def test_a_prompt_has_no_loss_and_a_batch_without_anything_to_learn_is_an_error(self):
        model = build()
        prompt = batch_of(model, [(text(5), {})])
        with pytest.raises(SequenceError, match=r"no supervised position"):
            model(**prompt)
        assert float(model(**prompt, num_items_in_batch=8).loss.detach()) == 0
        with torch.no_grad():
            assert model(**prompt).loss is None
        model.eval()
        out = model(**prompt)
        assert out.loss is None
        assert out.logits.shape[:2] == (1, 5)

    def test_input_ids_alone_are_enough(self):
        model = shared()
        ids = torch.tensor([[1, 20, 30, 40]])
        close(model(input_ids=ids).logits, model.backbone.llm(input_ids=ids).logits)
        mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
        padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), ids], 1)
        close(model(input_ids=padded, attention_mask=mask).logits[:, 2:], model.backbone.llm(input_ids=ids).logits)


class TestCaches:
    """A forward injects what begins at the cache's length, whatever was run before."""

    @settings(max_examples=12, deadline=None)
    @given(st.data())
    def test_cut_anywhere(self, data):
        model = shared()
        batch = batch_of(model, [rows()[i] for i in data.draw(st.permutations(range(4)))[:3]], side="left")
        full = all_logits(model, batch)
        cuts = sorted({*data.draw(st.lists(st.integers(1, batch.length - 1), min_size=1, max_size=4)), batch.length})
        cache, parts, injection = DynamicCache(config=model.backbone.llm.config), [], model.encode(batch)
        start = 0
        for stop in cuts:
            stretch = Batch({key: value[:, :stop] if torch.is_tensor(value) else value for key, value in batch.items()})
            with torch.no_grad():
                parts.append(model(**stretch, past_key_values=cache, injection=injection).logits)
            assert cache.get_seq_length() == stop
            start = stop
        assert start == batch.length
        real = batch.attention_mask.bool()
        close(torch.cat(parts, 1)[real], full[real])

    def test_steps_after_the_prompt_equal_a_run_without_a_cache(self):
        model = shared()
        batch = batch_of(model, rows(), side="left")
        with Calls(model.parts["image"].encoder) as encoder, torch.no_grad():
            injection = model.encode(batch)
            cache = model(**batch, use_cache=True, injection=injection, logits_to_keep=1).past_key_values
            for step in range(3):
                batch = batch.append(torch.full((4, 1), 30 + step))
                out = model(**batch, past_key_values=cache, injection=injection)
                assert out.logits.shape[1] == 1
                assert out.past_key_values is cache
            assert encoder.items == [3]
            # without the table handed over, a step beyond all slots runs no encoder either
            batch = batch.append(torch.full((4, 1), 40))
            last = model(**batch, past_key_values=cache).logits
            assert encoder.items == [3]
        close(last[:, 0], all_logits(model, batch)[:, -1])

    def test_a_static_cache(self):
        model = shared()
        batch = batch_of(model, rows(), side="left")
        cache = StaticCache(config=model.backbone.llm.config, max_cache_len=batch.length + 2)
        with torch.no_grad():
            model(**batch, past_key_values=cache)
            batch = batch.append(torch.full((4, 1), 30))
            close(model(**batch, past_key_values=cache).logits[:, 0], all_logits(model, batch)[:, -1])

    def test_crop_and_ask_again(self):
        model = shared()
        batch = batch_of(model, [page_row(0)])
        with torch.no_grad():
            injection = model.encode(batch)
            cache = model(**batch, use_cache=True, injection=injection).past_key_values
            first = batch.append(torch.tensor([[50, 51]]))
            model(**first, past_key_values=cache, injection=injection)
            cache.crop(-(first.length - 6))  # back into the middle of the page
            again = batch.append(torch.tensor([[60, 61, 62]]))
            logits = model(**again, past_key_values=cache, injection=injection).logits
        close(logits, all_logits(model, again)[:, 6:])

    def test_two_inputs_take_turns(self):
        model = shared()
        batches = [batch_of(model, [page_row(seed)]) for seed in (0, 9)]
        expected = []
        for batch in batches:
            longer = batch.append(torch.tensor([[70, 71]]))
            expected.append(all_logits(model, longer)[:, -1])
        with torch.no_grad():
            injections = [model.encode(batch) for batch in batches]
            caches = [
                model(**b, use_cache=True, injection=i).past_key_values
                for b, i in zip(batches, injections, strict=True)
            ]
            for token in (70, 71):
                for turn in (1, 0):
                    batches[turn] = batches[turn].append(torch.tensor([[token]]))
                    out = model(**batches[turn], past_key_values=caches[turn], injection=injections[turn])
                    last = out.logits
                    if token == 71:
                        close(last[:, 0], expected[turn])

    def test_a_cache_longer_than_the_batch(self):
        model = shared()
        batch = batch_of(model, [page_row(0)])
        with torch.no_grad():
            cache = model(**batch, use_cache=True).past_key_values
        with pytest.raises(SequenceError, match=r"at least one new one \(`batch.append\(ids\)`\)"):
            model(**batch, past_key_values=cache)


class TestRows:
    def test_batch_is_single_and_padding_changes_nothing(self):
        model = shared()
        alone = [all_logits(model, batch_of(model, [row]))[0] for row in rows()]
        for side in ("left", "right"):
            batch = batch_of(model, rows(), side=side)
            together = all_logits(model, batch)
            for row, expected in enumerate(alone):
                close(together[row][batch.attention_mask[row].bool()], expected)

    def test_packed_is_alone(self):
        model = shared()
        three = [page_row(0), page_row(2, images=2), text_row()]
        from vertebra.sequence.packing import pack_sequences

        packing = pack_sequences([row for row, _ in three], 200, features=[features for _, features in three])
        assert len(packing) == 1
        batch = model.collate(packing.rows, packing.features)
        together = all_logits(model, batch)[0]
        for place, member in enumerate(packing.members[0]):
            expected = all_logits(model, batch_of(model, [three[member]]))[0]
            close(together[batch.document[0] == place], expected)

    def test_text_only_costs_nothing(self):
        model = shared()
        batch = batch_of(model, rows())
        with Calls(model.parts["image"].encoder) as image, Calls(model.parts["boxes"].encoder) as boxes:
            model(**batch)
            assert image.items == [3]  # 1 + 0 + 2 + 0 images, one call
            assert boxes.items == [7]
            model(**batch_of(model, [text_row()]))
        assert image.items == [3]

    def test_two_cameras_share_one_call_and_may_be_told_apart(self):
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
            made = plan(batch, model.backbone.attention_facts)
            return model.backbone(inputs_embeds=inputs, **made.kwargs).logits

        assert plan(batch, model.backbone.attention_facts).form == "4d"
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
        model = MultimodalModel(backbone, {"action": new_queries(backbone, 3, start="zeros", learned=False)})
        assert not list(model.parts.parameters())
        row = TokenSequence.join([text(2), slots("action", 3), text(1, weight=1.0)])
        embeds = model.embed(batch_of(model, [(row, {})]))
        assert not embeds[0, 2:5].any()


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
            MultimodalModel(wide, {"image": part})


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

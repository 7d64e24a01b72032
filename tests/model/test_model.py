"""`Model.forward`: loss, logits where asked, and caches; against plain computations on the same tensors."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from tests.model.models import (
    Calls,
    all_logits,
    batch_of,
    build,
    close,
    mixed_rows,
    page_row,
    shared,
    text,
)
from vertebra.errors import SequenceError
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import count_items, sequence_loss


class TestLossAndLogits:
    def test_loss_is_that_of_the_full_logits(self):
        model, batch = shared(), batch_of(shared(), mixed_rows())
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
        model, batch = shared(), batch_of(shared(), mixed_rows())
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
        model, batch = shared(), batch_of(shared(), mixed_rows())
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
        model, batch = shared(), batch_of(shared(), mixed_rows())
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
        model, batch = shared(), batch_of(shared(), mixed_rows())
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
        batch = batch_of(model, [mixed_rows()[i] for i in data.draw(st.permutations(range(4)))[:3]], side="left")
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
        batch = batch_of(model, mixed_rows(), side="left")
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
        batch = batch_of(model, mixed_rows(), side="left")
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


@pytest.mark.parametrize("given", ["text", [3], [{"role": "user"}]])
def test_what_is_no_sequence_is_not_collated(given):
    with pytest.raises(SequenceError, match="expected `TokenSequence`s"):
        shared().collate(given)

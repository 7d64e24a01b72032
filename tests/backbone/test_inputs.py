"""Inputs of `forward` that cannot be meant: each is one clear message, none a wrong answer in silence."""

from __future__ import annotations

import pytest
import torch
from transformers import StaticCache

from vertebra.backbone.inputs import positions_of
from vertebra.errors import BackboneError, SequenceError, TooLongError


@pytest.mark.parametrize(
    "wrong",
    [
        torch.tensor([1, 2, 3]),
        torch.tensor([[1.0, 2.0]]),
        torch.zeros(1, 0, dtype=torch.long),
        [[1, 2]],
        torch.tensor([[True]]),
    ],
    ids=["one dimension", "floats", "empty", "list", "bool"],
)
def test_ids_that_are_no_ids(shared, wrong):
    with pytest.raises(SequenceError, match="input_ids is"):
        shared("tiny-llama2")(wrong)


def test_ids_outside_the_vocabulary(shared):
    backbone = shared("tiny-llama2")
    for wrong in (-1, backbone.num_rows):
        with pytest.raises(SequenceError, match=f"hold {wrong}, but the embedding has the rows 0 to"):
            backbone(torch.tensor([[1, wrong]]))
    backbone(torch.tensor([[1, backbone.num_rows - 1]]))


@pytest.mark.parametrize("shape", [(1, 3, 7), (1, 3), (3, 64)])
def test_embeddings_of_a_wrong_shape(shared, shape):
    with pytest.raises(SequenceError, match="inputs_embeds"):
        shared("tiny-llama2")(inputs_embeds=torch.randn(shape))


@pytest.mark.parametrize("shape", [(1, 3), (1, 5), (2, 4)])
@pytest.mark.parametrize("name", ["attention_mask", "labels", "position_ids"])
def test_what_comes_beside_the_inputs_has_their_shape(shared, name, shape):
    if name == "position_ids" and shape[0] == 2:
        shape = (3, 4)
    with pytest.raises(SequenceError, match=name):
        shared("tiny-llama2")(torch.tensor([[1, 5, 6, 7]]), **{name: torch.ones(shape, dtype=torch.long)})


def test_one_row_of_positions_serves_all(shared):
    backbone = shared("tiny-gpt2")
    rows = torch.tensor([[1, 5, 6], [7, 8, 9]])
    one, all_rows = torch.arange(3)[None], torch.arange(3).expand(2, 3)
    assert torch.equal(backbone(rows, position_ids=one).logits, backbone(rows, position_ids=all_rows).logits)


def test_a_mask_of_the_new_tokens_alone_is_refused_beside_a_cache(shared, ids):
    """Every new token would be taken for position 0."""
    backbone = shared("tiny-llama2", inference_mode=True)
    row = ids(backbone)
    with torch.no_grad():
        whole = backbone(row).logits[:, -1:]
        cache = backbone(row[:, :-1]).past_key_values
        with pytest.raises(SequenceError, match=f"{row.shape[1] - 1} cached and 1 new"):
            backbone(row[:, -1:], attention_mask=torch.ones(1, 1), past_key_values=cache)
        step = backbone(row[:, -1:], attention_mask=torch.ones_like(row), past_key_values=cache).logits
    torch.testing.assert_close(step, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_a_boolean_4d_mask_means_the_same_under_every_kernel(shared, ids, kernel):
    """Eager would add it to the scores: true 1, false 0, and everybody sees everything."""
    backbone = shared("tiny-llama2")
    row = ids(backbone)
    seen = torch.ones(row.shape[1], row.shape[1], dtype=torch.bool).tril()[None, None]
    with torch.no_grad(), backbone.kernel(kernel):
        torch.testing.assert_close(
            backbone(row, attention_mask=seen).logits, backbone(row).logits, atol=1e-5, rtol=1e-5
        )


def test_masks_that_no_kernel_takes(shared, ids):
    backbone = shared("tiny-llama2")
    row = ids(backbone)
    with pytest.raises(SequenceError, match=r"expected \[B, K\], or \[B, 1, Q, K\]"):
        backbone(row, attention_mask=torch.ones(1, row.shape[1], row.shape[1]))
    with backbone.kernel("flex_attention"), pytest.raises(BackboneError, match="flex_attention cannot take a 4-D"):
        backbone(row, attention_mask=torch.zeros(1, 1, row.shape[1], row.shape[1]))


def test_a_static_cache_is_left_to_itself(shared, ids):
    backbone = shared("tiny-llama2", inference_mode=True)
    row = ids(backbone)
    cache = StaticCache(config=backbone.llm.config, max_cache_len=row.shape[1] + 2)
    with torch.no_grad():
        assert torch.allclose(backbone(row, past_key_values=cache).logits, backbone(row).logits, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama2"])
def test_positions_that_the_model_does_not_have(shared, name):
    backbone = shared(name)
    limit = backbone.llm.config.max_position_embeddings
    for wrong in (limit, -1):
        with pytest.raises(TooLongError, match=f"hold {wrong}; .* 0 to {limit - 1}"):
            backbone(torch.tensor([[1, 5]]), position_ids=torch.tensor([[0, wrong]]))
    assert bool(torch.isfinite(backbone(torch.tensor([[1]]), position_ids=torch.tensor([[limit - 1]])).logits).all())


def test_labels_of_which_none_counts_are_no_loss_of_nan(shared):
    backbone = shared("tiny-llama2")
    row = torch.tensor([[1, 5, 6]])
    first_only = torch.tensor([[1, -100, -100]])
    with pytest.raises(SequenceError, match="no label counts"):
        backbone(row, labels=first_only)
    assert backbone(row, labels=first_only, num_items_in_batch=4).loss.item() == 0.0  # other micro-batches count


def test_a_compiled_backbone_is_one_graph(shared, ids):
    """Checks that read values would break it."""
    backbone = shared("tiny-llama2")
    row = ids(backbone)
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(row).logits, backbone(row).logits)


def test_positions_of_a_padded_row():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
    assert positions_of(mask).tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]

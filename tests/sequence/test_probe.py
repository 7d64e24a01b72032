"""The probe on a small attention model of two layers: it passes what is right and names what is not."""

from __future__ import annotations

import pytest
import torch

from vertebra.errors import BackboneError, SequenceError
from vertebra.sequence.batch import collate
from vertebra.sequence.probe import mask_takes_effect
from vertebra.sequence.tokens import TokenSequence
from vertebra.sequence.visibility import allowed

WIDTH = 8


class TwoLayers(torch.nn.Module):
    """Attention by torch's own kernel, with whatever table it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = torch.nn.ModuleList([torch.nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2)])

    def forward(self, inputs: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        for layer in self.mix:
            query, key, value = layer(inputs).chunk(3, -1)
            inputs = inputs + torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=table)
        return inputs


SEQUENCES = {
    "causal": TokenSequence.of(range(7)),
    "prefix": TokenSequence.of(range(7), block=[1, 1, 1, 0, 0, 0, 0]),
    "chunk": TokenSequence.of(range(7), block=[0, 0, 0, 2, 2, 2, 0]),
    "full": TokenSequence.of(range(7), block=1),
    "packed": TokenSequence.join([TokenSequence.of(range(3), block=1), TokenSequence.of(range(4))], new_documents=True),
}


def batch_of(name: str, side: str = "right"):
    return collate([SEQUENCES[name], TokenSequence.of(range(5))], pad_id=0, side=side)


def inputs_for(batch) -> torch.Tensor:
    return torch.randn(batch.rows, batch.length, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(SEQUENCES))
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("window", [None, 2])
def test_a_model_that_obeys_passes(name, side, window):
    batch, model = batch_of(name, side), TwoLayers()
    table = allowed(batch, window=window)
    effects = mask_takes_effect(lambda x: model(x, table), inputs_for(batch), batch, window=window, layers=2)
    assert all(effect.most_leaked == 0 and effect.least_seen > 1e-3 for effect in effects)
    noticed = {(effect.row, effect.changed): effect.must for effect in effects}
    last = len(SEQUENCES[name]) - 1
    assert set(noticed[0, last]) == (set(range(last)) if name == "full" else set())
    if name == "chunk":
        assert {3, 4} < set(noticed[0, 5]) | {3, 4, 6}
        assert {3, 4} <= set(noticed[0, 5])


@pytest.mark.parametrize(
    ("name", "does", "says"),
    [
        ("chunk", "causal", r"index 5 was changed, and \[3, 4\], which see it, did not notice"),
        ("full", "causal", "did not notice"),
        ("causal", "full", r"index 6 was changed, and .* which must not see it, noticed"),
        ("chunk", "full", "must not see it, noticed"),
    ],
)
def test_a_model_that_drops_the_mask_is_named(name, does, says):
    batch, model = batch_of(name), TwoLayers()
    table = allowed(batch_of(does))
    with pytest.raises(BackboneError, match=says):
        mask_takes_effect(lambda x: model(x, table), inputs_for(batch), batch)


def test_documents_that_see_each_other_are_named():
    batch, model = batch_of("packed"), TwoLayers()
    table = allowed(batch_of("causal"))
    with pytest.raises(BackboneError, match=r"index 1 was changed"):
        mask_takes_effect(lambda x: model(x, table), inputs_for(batch), batch, positions=[(0, 1)])


def test_a_window_that_was_lost_is_named():
    batch, model = batch_of("causal"), TwoLayers()
    options = {"window": 2, "layers": 2, "positions": [(0, 0)]}
    with pytest.raises(BackboneError, match=r"index 0 was changed, and \[3, 4, 5, 6\], which must not see it, noticed"):
        mask_takes_effect(lambda x: model(x, allowed(batch)), inputs_for(batch), batch, **options)


def test_a_free_rule_is_held_to():
    batch, model = batch_of("causal"), TwoLayers()

    def blind_to_3(query, key):
        return (key.index != 3) | (query.index == 3)

    options = {"attend": blind_to_3, "positions": [(0, 3)]}
    obeying = allowed(batch, attend=blind_to_3)
    (effect,) = mask_takes_effect(lambda x: model(x, obeying), inputs_for(batch), batch, **options)
    assert effect.must == ()
    with pytest.raises(BackboneError, match="noticed"):
        mask_takes_effect(lambda x: model(x, allowed(batch)), inputs_for(batch), batch, **options)


def test_what_cannot_be_probed():
    batch = batch_of("causal")
    with pytest.raises(SequenceError, match=r"expected embeddings \[2, 7, D\]"):
        mask_takes_effect(lambda x: x, batch.input_ids, batch)
    with pytest.raises(BackboneError, match="NaN or infinite"):
        mask_takes_effect(lambda x: x * float("nan"), inputs_for(batch), batch)

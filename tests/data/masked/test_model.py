"""A tiny encoder trains on masked batches end to end, fills all masks in one pass, and is saved as a plain folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForMaskedLM

from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.data.encode.encoders import WordEncoder
from vertebra.data.encode.masked_model import load_masked_lm
from vertebra.data.encode.masks import Masked, Masking
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import InOrder, LengthGrouped
from vertebra.errors import BackboneError, CheckpointError, DataError, TooLongError

COLORS = {"red": "stones", "green": "table", "blue": "lamp", "white": "plate"}
TEXTS = [f"the {color} thing is my {thing} there" for color, thing in COLORS.items()] * 16


def evaluated(model, samples) -> float:
    loader = Loader(samples, InOrder(16), Collator(0), pin_memory=False, shift=False)
    model.eval()
    with torch.no_grad():
        losses = [float(model(**batch)["loss"]) for batch in loader]
    model.train()
    return sum(losses) / len(losses)


def test_it_learns_to_fill_and_fills_all_masks_at_once(tmp_path):
    torch.manual_seed(0)
    model = load_masked_lm("tiny-bert", pretrained=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    table = prepare(TEXTS, WordEncoder(model.tokenizer), cache=False)
    train = Masked(table, model.tokenizer, Masking(rate=0.25))
    valid = Masked(table, model.tokenizer, Masking(fixed=True, seed=1))
    before = evaluated(model, valid)
    assert evaluated(model, valid) == before
    loader = Loader(train, LengthGrouped(32), Collator(model.tokenizer.pad_token_id), pin_memory=False, shift=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        for batch in loader:
            model(**batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    after = evaluated(model, valid)
    assert after < before / 3, (before, after)

    calls = []
    hook = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    mask = model.tokenizer.mask_token
    found = model.fill([f"the {mask} thing {mask} my table there", f"{mask} blue thing is my lamp {mask}"])
    hook.remove()
    assert len(calls) == 1
    assert found[0].text == "the green thing is my table there"
    assert found[1].text == "the blue thing is my lamp there"
    assert [len(one.guesses) for one in found] == [2, 2]
    assert all(len(guesses) == 5 for guesses in found[0].guesses)

    model.save_pretrained(tmp_path)
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path)
    again = load_masked_lm(tmp_path)
    batch = next(iter(Loader(valid, InOrder(2), Collator(0), pin_memory=False)))
    model.eval(), again.eval(), plain.eval()
    assert torch.equal(model(**batch)["logits"], again(**batch)["logits"])
    assert torch.equal(plain(batch.input_ids, batch.attention_mask).logits, again(**batch)["logits"])


def test_the_loss_is_that_of_the_library_on_masked_positions():
    """`labels` of −100 wherever the weight is 0 gives Hugging Face's own loss."""
    model = load_masked_lm("tiny-bert").eval()
    table = prepare(TEXTS[:5], WordEncoder(model.tokenizer), cache=False)
    (batch,) = Loader(Masked(table, model.tokenizer), InOrder(8), Collator(0), pin_memory=False, shift=False)
    labels = torch.where(batch.weights > 0, batch.targets, -100)
    theirs = model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    assert model(**batch)["loss"].item() == pytest.approx(theirs.item(), rel=1e-5)
    count = float((batch.weights > 0).sum())
    assert model(**batch, num_items_in_batch=2 * count)["loss"].item() == pytest.approx(theirs.item() / 2, rel=1e-5)


def test_padding_changes_nothing():
    model = load_masked_lm("tiny-bert").eval()
    table = prepare(
        ["a short one", "a much longer text than the other one is"], WordEncoder(model.tokenizer), cache=False
    )
    samples = Masked(table, model.tokenizer)
    alone = next(iter(Loader(samples, InOrder(1), Collator(0, multiple_of=1), pin_memory=False)))
    both = next(iter(Loader(samples, InOrder(2), Collator(0), pin_memory=False)))
    length = alone.length
    assert torch.allclose(model(**alone)["logits"][0], model(**both)["logits"][0, :length], atol=1e-5)


def test_what_it_refuses(tmp_path):
    model = load_masked_lm("tiny-bert")
    with pytest.raises(DataError, match="nothing to fill"):
        model.fill("no mask here")
    with pytest.raises(TooLongError, match="this encoder reads 512"):
        model.fill("a " * 600 + model.tokenizer.mask_token)
    with pytest.raises(BackboneError, match="no masked-language head"):
        load_masked_lm(tiny_checkpoint("tiny-llama2"))
    with pytest.raises(CheckpointError):
        load_masked_lm(tmp_path / "nothing")
    batch = {"input_ids": torch.ones(1, 4, dtype=torch.long), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with pytest.raises(DataError, match="packed samples"):
        model(**batch, document=torch.tensor([[0, 0, 1, 1]]))
    assert "loss" not in model(**batch)

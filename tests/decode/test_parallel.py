"""Parallel decoding: all slots in one pass, on the library's own model code, in every family and kernel that can."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tests.decode.plain import FAMILIES, backbone, prompts
from tests.model.models import Calls, batch_of, page_row, shared, slots, text
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedSteps
from vertebra.decode.parallel import fill
from vertebra.decode.state.prefill import prefill
from vertebra.errors import BackboneError, GenerationError, UnknownNameError
from vertebra.sequence.batch import collate
from vertebra.sequence.tokens import Role, TokenSequence

COUNT = 6


def with_places(name: str, lengths=(12, 5, 17)) -> tuple:
    """Rows that end in ids whose places are to be filled, and those places."""
    model = backbone(name)
    rows = [TokenSequence.join([one, TokenSequence.of([9] * COUNT)]) for one in prompts(name, lengths)]
    batch = collate(rows, pad_id=model.pad_token_id, side="left")
    at = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    at[:, -COUNT:] = True
    return model, rows, batch, at


@pytest.mark.parametrize("name", FAMILIES)
def test_under_a_causal_mask_it_is_the_teacher_forced_pass(name):
    model, rows, batch, at = with_places(name)
    filled = fill(model, batch, at=at, see="causal")
    for row, sequence in enumerate(rows):
        with torch.no_grad():
            logits = model.llm(torch.tensor(sequence.ids)[None], use_cache=False).logits[0]
        expected = logits[len(sequence) - COUNT - 1 : -1]
        torch.testing.assert_close(filled.logits[row], expected, atol=1e-4, rtol=1e-4)
        assert filled.tokens[row] == expected.argmax(-1).tolist()
    assert [one.columns for one in filled.passes] == [batch.length]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("see", ["block", "row"])
def test_both_ways(name, see):
    """A plain pass with a plain mask of one's own says the same; and what comes last changes what comes first."""
    model, rows, batch, at = with_places(name)
    filled = fill(model, batch, at=at, see=see)
    window = 8 if model.attention_facts.windowed else None
    types = model.attention_facts.types
    for row, sequence in enumerate(rows):
        length = len(sequence)
        order = torch.arange(length)
        sees = order[None] <= order[:, None]
        if see == "row":
            sees = torch.ones_like(sees)
        sees[-COUNT:, -COUNT:] = True
        masks = {}
        for kind in types:
            near = sees & (order[None] > order[:, None] - window) if kind == "sliding_attention" else sees
            masks[kind] = torch.where(near, 0.0, torch.finfo(torch.float32).min)[None, None]
        mask = masks if len(masks) > 1 else masks[types[0]]
        with torch.no_grad():
            logits = model.llm(
                torch.tensor(sequence.ids)[None], attention_mask=mask, position_ids=order[None], use_cache=False
            ).logits
        torch.testing.assert_close(filled.logits[row], logits[0, length - COUNT - 1 : -1], atol=1e-4, rtol=1e-4)
    changed = collate([row.with_vectors(ids=row.ids.copy()) for row in rows], pad_id=model.pad_token_id, side="left")
    changed["input_ids"][:, -1] = 11
    other = fill(model, changed, at=at, see=see)
    # read one before: the first slot that the last one can change is the second
    assert not torch.allclose(other.logits[:, 1], filled.logits[:, 1], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_kernels(name):
    """What the mask says holds under eager attention too; a kernel that cannot be told refuses."""
    model, _, batch, at = with_places(name)
    reference = fill(model, batch, at=at, see="block")
    with model.kernel("eager"):
        filled = fill(model, batch, at=at, see="block")
        assert filled.tokens == reference.tokens
        torch.testing.assert_close(filled.logits, reference.logits, atol=1e-4, rtol=1e-4)
    if name not in ("tiny-llama2", "tiny-mistral", "tiny-gemma3"):
        return
    with model.kernel("flex_attention"), pytest.raises(BackboneError, match="cannot take a 4-D"):
        fill(model, batch, at=at, see="block")


def policy_rows() -> list:
    """An instruction, an image, and six action slots that see each other."""
    rows = []
    for seed, words in ((0, 4), (1, 7)):
        sequence, features = page_row(seed, images=1, lines=1)
        action = slots("action", COUNT, block=1, role=Role.ACTION)
        rows.append((TokenSequence.join([sequence, text(words, seed + 20), action]), features))
    return rows


def test_action_slots():
    """Queries stand in the slots; the encoder runs once; both ways of decoding live in one process."""
    model = shared(inference_mode=True, weights=True)
    batch = batch_of(model, policy_rows())
    with Calls(model.parts["image"].encoder) as images:
        filled = fill(model, batch)
    assert images.items == [2]
    assert [len(row) for row in filled.tokens] == [COUNT, COUNT]
    assert filled.hidden.shape == (2, COUNT, 64)
    for row, one in enumerate(policy_rows()):
        alone = fill(model, batch_of(model, [one]))
        assert alone.tokens[0] == filled.tokens[row]
        with torch.no_grad():
            logits = model(**batch_of(model, [one]), use_cache=False, return_loss=False).logits
        torch.testing.assert_close(alone.logits[0], logits[0, -COUNT - 1 : -1], atol=1e-4, rtol=1e-4)
    result = generate(model, batch_of(model, [page_row(0)]), max_new_tokens=3, eos_token_id=())
    assert result.lengths == [3]
    assert fill(model, batch).tokens == filled.tokens


def test_allowed_ids_alone():
    model = shared(inference_mode=True, weights=True)
    batch = batch_of(model, policy_rows())
    bins = range(600, 664)
    whole = fill(model, batch)
    filled = fill(model, batch, allowed=bins)
    assert filled.logits.shape == (2, COUNT, 64)
    torch.testing.assert_close(filled.logits, whole.logits[..., 600:664], atol=1e-5, rtol=1e-5)
    assert all(token in bins for row in filled.tokens for token in row)
    by_slot = fill(model, batch, allowed=AllowedSteps([[1], [2, 3], range(4, 9), [9], [10], [11, 12]]))
    for row in range(2):
        expected = [
            max(ids, key=lambda i, k=k: float(whole.logits[row, k, i]))
            for k, ids in enumerate(([1], [2, 3], range(4, 9), [9], [10], [11, 12]))
        ]
        assert by_slot.tokens[row] == expected
    assert by_slot.log_probs[0][0] == pytest.approx(0)  # one id was possible
    with pytest.raises(GenerationError, match="the constraint has 7 steps"):
        fill(model, batch, allowed=AllowedSteps([[1]] * 7))
    with pytest.raises(GenerationError, match="2 steps, and a row has 6"):
        fill(model, batch, allowed=AllowedSteps([[1], [2]]))


def test_drawn_slots():
    model = shared(inference_mode=True, weights=True)
    batch = batch_of(model, policy_rows())
    drawn = fill(model, batch, temperature=1.5, top_k=50, seed=3)
    assert drawn.seeds == (3, 4)
    assert drawn.tokens == fill(model, batch, temperature=1.5, top_k=50, seed=[3, 4]).tokens
    assert drawn.tokens != fill(model, batch, temperature=1.5, top_k=50, seed=5).tokens
    with pytest.raises(GenerationError, match="no effect"):
        fill(model, batch, seed=3)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-mistral", "tiny-gemma3", "tiny-gpt2"])
def test_after_a_prefix(name):
    """The page and the instruction are computed once; every control step brings its own slots."""
    from tests.model.models import build

    model = build(name, inference_mode=True, weights=True).eval()
    (whole, features), _ = policy_rows()
    start = len(whole) - COUNT - 2
    state = prefill(model, batch_of(model, [(whole.cut(0, start), features)]))
    for see in ("given", "causal", "block"):
        expected = fill(model, batch_of(model, [(whole, features)]), see=see)
        filled = fill(model, [whole.cut(start)], see=see, state=state)
        torch.testing.assert_close(filled.logits, expected.logits, atol=1e-4, rtol=1e-4)
        assert filled.passes[-1].columns == COUNT + 2
    assert state.length == start
    with pytest.raises(GenerationError, match='see="row"'):
        fill(model, [whole.cut(start)], see="row", state=state)


def test_rows_with_more_and_fewer_slots():
    model = backbone("tiny-llama2")
    rows = [TokenSequence.of([5, 6, 9, 9, 7]), TokenSequence.of([5, 9, 8, 9, 6, 9])]
    filled = fill(model, rows, at=9, see="causal")
    assert [len(row) for row in filled.tokens] == [2, 3]
    assert filled.real.tolist() == [[True, True, False], [True, True, True]]
    for row, one in enumerate(rows):
        assert fill(model, one, at=9, see="causal").tokens[0] == filled.tokens[row]
    assert len(filled.text) == 2


def test_what_cannot_be_filled():
    model = backbone("tiny-llama2")
    rows = prompts("tiny-llama2")
    with pytest.raises(UnknownNameError, match="segment `action`"):
        fill(model, rows)
    with pytest.raises(UnknownNameError, match="`block`"):
        fill(model, rows, at=9, see="blocks")
    with pytest.raises(GenerationError, match="nothing is at `1023`"):
        fill(model, rows, at=1023)
    with pytest.raises(GenerationError, match="begin with a slot"):
        fill(model, [TokenSequence.of([9, 5])], at=9)
    with pytest.raises(GenerationError, match="rows 1 have no place"):
        fill(model, [TokenSequence.of([5, 9]), TokenSequence.of([5, 6])], at=9)
    with pytest.raises(GenerationError, match=r"`at` is 2\.5"):
        fill(model, rows, at=2.5)


class Masked:
    """An encoder with its tokenizer, as the data package's `MaskedLM` has them."""

    def __init__(self) -> None:
        folder = tiny_checkpoint("tiny-bert")
        self.encoder = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.mask_id = self.tokenizer.mask_token_id


def test_an_encoder_fills_all_masks_in_one_pass():
    model = Masked()
    texts = ["the [MASK] is on the [MASK] .", "[MASK] it up"]
    filled = fill(model, texts)
    assert [len(row) for row in filled.tokens] == [2, 1]
    assert len(filled.passes) == 1
    for row, one in enumerate(texts):
        given = model.tokenizer(one, return_tensors="pt")
        with torch.no_grad():
            logits = model.encoder(**given).logits[0]
        places = (given["input_ids"][0] == model.mask_id).nonzero()[:, 0]
        assert filled.tokens[row] == logits[places].argmax(-1).tolist()
        torch.testing.assert_close(filled.logits[row, : len(places)], logits[places], atol=1e-4, rtol=1e-4)
    narrow = fill(model, texts, allowed=[100, 200, 300])
    assert all(token in (100, 200, 300) for row in narrow.tokens for token in row)
    left = collate([TokenSequence.of(model.tokenizer(one).input_ids) for one in texts], pad_id=0, side="left")
    assert fill(model, left).tokens == filled.tokens
    with pytest.raises(GenerationError, match="no prefix to continue"):
        fill(model, texts, state=prefill(backbone("tiny-llama2"), prompts("tiny-llama2")))
    with pytest.raises(GenerationError, match="by nature"):
        fill(model, texts, see="row")


def test_slots_that_are_no_numbers_are_named(caplog):
    from vertebra.backbone.registry import load_backbone

    model = load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="float32")
    with torch.no_grad():
        model.llm.get_input_embeddings().weight[77] = float("nan")
    filled = fill(model, [TokenSequence.of([5, 6, 9]), TokenSequence.of([5, 77, 9])], at=9)
    assert filled.failed == [1]
    assert "row 1" in caplog.text

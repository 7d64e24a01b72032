"""The plan: whatever form it chooses, the model's own masking code turns it into exactly the rule.

The reference is transformers itself: `create_causal_mask` and its windowed sibling are asked for the table they would
use, given what the plan hands over. The rule (`visibility.allowed`) has its own plain reference.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, MistralConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from vertebra.errors import BackboneError, SequenceError, UnknownNameError
from vertebra.sequence.batch import collate
from vertebra.sequence.masks import AttentionFacts, plan_attention
from vertebra.sequence.tokens import TokenSequence
from vertebra.sequence.visibility import allowed

from .samples import batches_of, packed, samples

WINDOW = 4
PLAIN = AttentionFacts(kernel="eager")
WINDOWED = AttentionFacts(kernel="eager", window=WINDOW)
MIXED = AttentionFacts(kernel="eager", window=WINDOW, layer_types=("sliding_attention", "full_attention"))
CONFIG = {
    window: MistralConfig(
        num_hidden_layers=1, hidden_size=4, num_attention_heads=1, num_key_value_heads=1, sliding_window=window
    )
    for window in (None, WINDOW)
}
for _config in CONFIG.values():
    _config._attn_implementation = "eager"


def one(length: int, **vectors) -> TokenSequence:
    return TokenSequence.of(range(length), **vectors)


def seen_by_transformers(made, window, *, cache_length=0):
    """The boolean table that a layer would use, given the plan's arguments."""
    positions = made.position_ids
    mask = made.attention_mask
    if isinstance(mask, dict):
        mask = mask["sliding_attention" if window else "full_attention"]
    cache = DynamicCache() if made.use_cache else None
    if cache_length:
        cache.update(
            torch.zeros(len(positions), 1, cache_length, 4), torch.zeros(len(positions), 1, cache_length, 4), 0
        )
    make = create_sliding_window_causal_mask if window else create_causal_mask
    table = make(
        config=CONFIG[window],
        inputs_embeds=torch.zeros(*positions.shape, 4),
        attention_mask=mask,
        past_key_values=cache,
        position_ids=positions,
    )
    return (table == 0)[:, 0].expand(len(positions), -1, -1)


def check_exact(batch, facts, **options):
    made = plan_attention(batch, facts, **options)
    first = options.get("cache_length", 0)
    real = batch.attention_mask.bool()[:, first:]
    windows = {"full_attention": None, "sliding_attention": facts.window}
    for window in {windows[name] for name in facts.types}:
        table = seen_by_transformers(made, window, cache_length=first)
        rule = allowed(batch, window=window, first_query=first)
        assert torch.equal(table[real], rule[real]), (made.form, made.reason)
        assert made.form != "4d" or table.any(-1).all()  # padding sees itself: no kernel meets an empty row
    return made


facts_of_families = st.sampled_from([PLAIN, WINDOWED, MIXED])
sides = st.sampled_from(["right", "left"])


@settings(max_examples=60, deadline=None)
@given(batches_of(packed()), sides, facts_of_families, st.booleans())
def test_every_form_is_exact(sequences, side, facts, use_cache):
    batch = collate(sequences, pad_id=0, side=side)
    made = check_exact(batch, facts, use_cache=use_cache)
    # ... and native wherever it can be
    several = any(sequence.documents > 1 for sequence in sequences)
    if not any(sequence.block.any() for sequence in sequences):
        if several and not use_cache:
            assert made.form == "packed"
        elif not several and side == "left" and len({len(s) for s in sequences}) > 1:
            assert made.form == "2d"
        elif not several and not use_cache:
            assert made.form == "causal"


@settings(max_examples=50, deadline=None)
@given(batches_of(packed()), sides, facts_of_families, st.booleans(), st.data())
def test_odd_positions_are_exact_too(sequences, side, facts, use_cache, data):
    """Shared positions, gaps, documents that count on or come back: what reads packing from positions gets wrong."""
    odd = []
    for sequence in sequences:
        length = len(sequence)
        positions = data.draw(st.lists(st.integers(0, 6), min_size=length, max_size=length))
        documents = data.draw(st.lists(st.integers(0, 2), min_size=length, max_size=length))
        changes = {"position": sequence.position * 0 + positions, "document": sequence.document * 0 + documents}
        kept = data.draw(st.lists(st.sampled_from(sorted(changes)), max_size=2))
        odd.append(sequence.with_vectors(**{name: changes[name] for name in kept}))
    check_exact(collate(odd, pad_id=0, side=side), facts, use_cache=use_cache)


@pytest.mark.parametrize("facts", [PLAIN, WINDOWED, MIXED], ids=["plain", "windowed", "mixed"])
def test_a_document_that_comes_back(facts):
    """Positions restart as in packing, but the third run belongs to the first document again."""
    joined = TokenSequence.join([one(3), one(2), one(3)], new_documents=True)
    again = joined.with_vectors(document=joined.document % 2)
    assert check_exact(collate([again], pad_id=0), facts).form == "4d"


@pytest.mark.parametrize("facts", [PLAIN, WINDOWED, MIXED], ids=["plain", "windowed", "mixed"])
def test_padding_inside_a_row(facts):
    """Steps after right-padded prompts: a window that counts places in the row would see too little."""
    batch = collate([one(9), one(2)], pad_id=0, side="right").append(torch.zeros(2, 2))
    made = check_exact(batch, facts, cache_length=9)
    assert made.form == ("2d" if facts is PLAIN else "4d")


@settings(max_examples=50, deadline=None)
@given(batches_of(packed()), sides, facts_of_families, st.data())
def test_steps_after_a_cache_are_exact(sequences, side, facts, data):
    batch = collate(sequences, pad_id=0, side=side)
    grown = batch.append(torch.zeros(batch.rows, data.draw(st.integers(1, 3)), dtype=torch.long))
    check_exact(grown, facts, cache_length=data.draw(st.integers(1, grown.length - 1)))


@settings(max_examples=30, deadline=None)
@given(batches_of(samples()))
def test_decoding_is_native_after_a_prefix_that_saw_itself(sequences):
    """The both-ways block lies in the cache: the steps need no 4-D mask any more."""
    batch = collate(sequences, pad_id=0, side="left")
    step = plan_attention(batch.append(torch.zeros(batch.rows, 1)), PLAIN, cache_length=batch.length)
    assert step.form in ("causal", "2d")
    assert step.position_ids.tolist() == [[len(sequence)] for sequence in sequences]


def two_documents() -> TokenSequence:
    return TokenSequence.join([one(3), one(4)], new_documents=True)


NO_ISOLATION = AttentionFacts(kernel="eager", isolates_by_position=False)
LEARNED = AttentionFacts(kernel="eager", max_positions=6)
ENCODER = AttentionFacts(kernel="eager", causal=False)


@pytest.mark.parametrize(
    ("sequences", "facts", "options", "form", "reason"),
    [
        ([one(5)], PLAIN, {}, "causal", "no padding"),
        ([one(5), one(3)], PLAIN, {}, "causal", "only to the right"),
        ([one(5), one(3)], PLAIN, {"use_cache": True}, "2d", "padding must be hidden"),
        ([one(5), one(3)], PLAIN, {"side": "left"}, "2d", "padding must be hidden"),
        ([one(5), one(3)], LEARNED, {"multiple_of": 8}, "2d", "beyond the table of positions"),
        ([one(5), one(3)], LEARNED, {}, "causal", "only to the right"),
        ([two_documents()], PLAIN, {}, "packed", "told apart by their positions"),
        ([two_documents()], WINDOWED, {}, "packed", "told apart by their positions"),
        ([two_documents()], PLAIN, {"use_cache": True}, "4d", "a cache is in use"),
        ([two_documents()], NO_ISOLATION, {}, "4d", "does not keep them apart"),
        ([one(5, block=1)], PLAIN, {}, "4d", "both ways"),
        ([one(5, block=[0, 1, 0, 0, 0])], PLAIN, {}, "causal", "no padding"),
        ([one(5, position=[0, 1, 1, 1, 2])], PLAIN, {}, "2d", "taken for new documents"),
        ([one(5, position=[0, 1, 1, 1, 2])], WINDOWED, {}, "4d", "a window counts them"),
        ([one(5)], PLAIN, {"attend": lambda q, k: q.index >= k.index}, "4d", "a free rule"),
        ([one(5, block=1)], ENCODER, {}, "full", "one block"),
        ([one(5, block=1), one(3, block=1)], ENCODER, {}, "2d", "with padding"),
        ([one(5)], ENCODER, {}, "4d", "not every row is one block"),
    ],
)
def test_the_form_and_its_reason(sequences, facts, options, form, reason):
    shape = {name: options[name] for name in ("side", "multiple_of") if name in options}
    rest = {name: value for name, value in options.items() if name not in shape}
    made = plan_attention(collate(sequences, pad_id=0, **shape), facts, **rest)
    assert made.form == form
    assert reason in made.reason
    assert set(made.kwargs) == {"attention_mask", "position_ids", "use_cache"}
    assert (made.attention_mask is None) == (form in ("causal", "full", "packed"))


def test_positions_run_on_through_padding_so_that_no_mask_is_made():
    made = plan_attention(collate([one(5), one(3)], pad_id=0), PLAIN)
    assert made.position_ids.tolist() == [list(range(5))] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mask_is_float_and_a_dict_where_types_are_mixed(dtype):
    batch = collate([one(6, block=1)], pad_id=0)
    single = plan_attention(batch, WINDOWED, dtype=dtype).attention_mask
    assert single.dtype == dtype
    assert set(single.unique().tolist()) == {0.0, torch.finfo(dtype).min}
    both = plan_attention(batch, MIXED, dtype=dtype).attention_mask
    assert list(both) == ["sliding_attention", "full_attention"]
    assert torch.equal(both["sliding_attention"], single)
    assert both["full_attention"].unique().tolist() == [0.0]
    assert both["full_attention"].shape == (1, 1, 6, 6)


def test_keys_at_hand_are_those_of_the_cache():
    """A rolling cache has dropped what the window hides; a static one has empty room at its end."""
    batch = collate([two_documents()], pad_id=0).append(torch.zeros(1, 2))
    whole = plan_attention(batch, MIXED, cache_length=7).attention_mask
    sizes = {"sliding_attention": (WINDOW - 1 + 2, 7 - WINDOW + 1), "full_attention": (12, 0)}
    made = plan_attention(batch, MIXED, cache_length=7, key_sizes=sizes).attention_mask
    assert made["sliding_attention"].shape == (1, 1, 2, WINDOW + 1)
    assert torch.equal(made["sliding_attention"], whole["sliding_attention"][..., 4:])
    assert torch.equal(made["full_attention"][..., :9], whole["full_attention"])
    assert (made["full_attention"][..., 9:] < 0).all()
    with pytest.raises(SequenceError, match="dropped its first 6 keys"):
        plan_attention(batch, MIXED, cache_length=7, key_sizes={"full_attention": (3, 6)})
    with pytest.raises(SequenceError, match="cut off"):
        plan_attention(batch, MIXED, cache_length=7, key_sizes={"full_attention": (8, 0)})
    with pytest.raises(UnknownNameError, match=r"`sliding`.*sliding_attention"):
        plan_attention(batch, MIXED, cache_length=7, key_sizes={"sliding": (8, 0)})


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"])
def test_kernels_that_take_no_4d_mask_are_refused(kernel):
    facts = AttentionFacts(kernel=kernel)
    assert plan_attention(collate([one(5), one(3)], pad_id=0, side="left"), facts).form == "2d"
    with pytest.raises(BackboneError, match=f'{kernel} cannot take a 4-D.*both ways.*attn="eager" or "sdpa"'):
        plan_attention(collate([one(5, block=1)], pad_id=0), facts)


@settings(max_examples=25, deadline=None)
@given(batches_of(packed(blocks=False)), sides)
def test_flash_kernels_know_where_documents_begin(sequences, side):
    """In all rows laid end to end; with more rows than one, positions alone would not isolate."""
    made = plan_attention(
        collate(sequences, pad_id=0, side=side), AttentionFacts(kernel="flash_attention_2"), dtype=torch.bfloat16
    )
    if made.form != "packed":
        assert made.extra == {}
        return
    flat = collate(sequences, pad_id=0, side=side).document.flatten().tolist()
    length = len(flat) // len(sequences)
    starts = [i for i in range(len(flat)) if i % length == 0 or flat[i] != flat[i - 1]]
    longest = max(b - a for a, b in zip(starts, [*starts[1:], len(flat)], strict=True))
    assert made.kwargs["cu_seq_lens_q"].tolist() == made.kwargs["cu_seq_lens_k"].tolist() == [*starts, len(flat)]
    assert made.kwargs["cu_seq_lens_q"].dtype == torch.int32
    assert made.kwargs["max_length_q"] == made.kwargs["max_length_k"] == longest
    assert made.kwargs["use_cache"] is False


def test_flash_kernels_would_split_a_document_with_gaps():
    with pytest.raises(BackboneError, match="would split a document"):
        plan_attention(collate([one(3, position=[0, 0, 1])], pad_id=0), AttentionFacts(kernel="flash_attention_2"))


def test_layers_that_no_mask_of_ours_can_say():
    facts = AttentionFacts(kernel="sdpa", layer_types=("linear_attention", "full_attention", "chunked_attention"))
    assert plan_attention(collate([one(5), one(3)], pad_id=0, side="left"), facts).form == "2d"
    for sequence in (one(5, block=1), two_documents()):
        with pytest.raises(BackboneError, match="`linear_attention`, `chunked_attention`"):
            plan_attention(collate([sequence], pad_id=0), facts)
    encoder = AttentionFacts(kernel="sdpa", causal=False, window=4)
    with pytest.raises(BackboneError, match="differs between families"):
        plan_attention(collate([one(5)], pad_id=0), encoder)


def test_facts_that_cannot_be():
    with pytest.raises(UnknownNameError, match="Did you mean `flash_attention_2`"):
        AttentionFacts(kernel="flash_attention2")
    with pytest.raises(SequenceError, match="window of 0"):
        AttentionFacts(kernel="sdpa", window=0)
    with pytest.raises(SequenceError, match="need a window"):
        AttentionFacts(kernel="sdpa", layer_types=("sliding_attention",))
    for length in (-1, 5, 9):
        with pytest.raises(SequenceError, match=f"cache of {length} positions and a batch of 5"):
            plan_attention(collate([one(5)], pad_id=0), PLAIN, cache_length=length)

"""Every family, on every kernel it has here: what a plan says is what the model does, also beyond its window of 8.

Packed = alone, padded = alone, a 4-D mask = the native form, both ways takes effect, cached = uncached; on true tiny
checkpoints, fp32 within 1e-5 of the logits' size. The last tests show that each error would be seen, being much larger.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
import transformers
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DynamicCache,
)
from transformers.masking_utils import flash_attention_mask

from vertebra.backbone.facts import attention_facts
from vertebra.backbone.families.models import FAMILIES
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import BackboneError
from vertebra.sequence.batch import collate
from vertebra.sequence.masks import AttentionFacts, plan_attention
from vertebra.sequence.probe import mask_takes_effect
from vertebra.sequence.tokens import TokenSequence

WINDOW = 8
LENGTHS = (5, 33, 20)
"""Short, well beyond the window, beyond it."""

# Families whose windows are off by default in the real models too: once more with a window on half of the layers.
MIXED = {
    "tiny-qwen2": {"layer_types": ["full_attention", "sliding_attention"]},
    "tiny-qwen3": {"layer_types": ["sliding_attention", "full_attention"]},
    "tiny-smollm3": {"layer_types": ["full_attention", "sliding_attention"] * 2},
}
FAMILIES_HERE = [*TINY, *(f"{name}+window" for name in MIXED)]


def kernels_of(family: str) -> list[str]:
    """The kernels that run on every machine and that this family has in this version of transformers."""
    spec = TINY[family.partition("+")[0]]
    return ["eager", "sdpa"] if getattr(transformers, spec.llm_cls)._supports_sdpa else ["eager"]


@cache
def load(family: str):
    """One load a family; the kernel is switched in the tests."""
    name, _, windowed = family.partition("+")
    overrides = {"use_sliding_window": True, "sliding_window": WINDOW, **MIXED[name]} if windowed else {}
    model = AutoModelForCausalLM.from_pretrained(
        tiny_checkpoint(name), dtype=torch.float32, attn_implementation="eager", **overrides
    )
    model.isolates = FAMILIES[TINY[name].family].isolates_by_position
    return model.eval()


@pytest.fixture(params=[(family, kernel) for family in FAMILIES_HERE for kernel in kernels_of(family)], ids="-".join)
def model(request):
    family, kernel = request.param
    model = load(family)
    model.set_attn_implementation(kernel)
    return model


@pytest.fixture(params=FAMILIES_HERE)
def eager(request):
    model = load(request.param)
    model.set_attn_implementation("eager")
    return model


def facts_of(model) -> AttentionFacts:
    return attention_facts(model.config, isolates_by_position=model.isolates)


def sequences(*lengths: int, **vectors) -> list[TokenSequence]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(10, 700, (sum(lengths),), generator=generator).split(lengths)
    return [TokenSequence.of(ids.numpy(), weight=1.0, **vectors) for ids in drawn]


@torch.no_grad()
def logits_of(model, batch, made, **kwargs) -> torch.Tensor:
    start = batch.length - made.position_ids.shape[1]
    return model(input_ids=batch.input_ids[:, start:], **made.kwargs, **kwargs).logits


def planned(model, batch, **options):
    return plan_attention(batch, facts_of(model), dtype=model.dtype, **options)


def alone(model, sequence: TokenSequence, **options) -> torch.Tensor:
    """The sample in a batch of its own, without padding."""
    batch = collate([sequence], pad_id=0)
    return logits_of(model, batch, planned(model, batch, **options))[0]


def assert_same(got: torch.Tensor, expected: torch.Tensor, bound: float = 1e-5) -> None:
    assert torch.isfinite(got).all()
    assert float((got - expected).abs().max() / expected.abs().max()) < bound


def everything_before(query, key):
    """The causal rule as a free one, about which a plan knows nothing: it forces a 4-D mask."""
    return key.index <= query.index


def test_packed_is_alone(model):
    parts = sequences(*LENGTHS)
    row = TokenSequence.join(parts, new_documents=True)
    # a second row, of other documents, and padding
    batch = collate([row, TokenSequence.join(parts[1:], new_documents=True)], pad_id=0)
    expected = [alone(model, part) for part in parts]
    native = planned(model, batch)
    assert native.form == ("packed" if facts_of(model).isolates_by_position else "4d")
    cached = planned(model, batch, use_cache=True)
    assert cached.form == "4d"
    for made in (native, cached):
        logits = logits_of(model, batch, made)
        assert torch.isfinite(logits).all()  # on padding, too
        assert_same(logits[0], torch.cat(expected))
        assert_same(logits[1, : sum(LENGTHS[1:])], torch.cat(expected[1:]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_is_alone(model, side):
    parts = sequences(*LENGTHS)
    batch = collate(parts, pad_id=0, side=side, multiple_of=8)
    native = planned(model, batch)
    assert native.form == ("2d" if side == "left" else "causal")
    for made in (native, planned(model, batch, use_cache=True), planned(model, batch, attend=everything_before)):
        logits = logits_of(model, batch, made)
        assert torch.isfinite(logits).all()
        for row, part in enumerate(parts):
            assert_same(logits[row][batch.attention_mask[row].bool()], alone(model, part))


def test_a_4d_mask_is_the_native_form(model):
    (sequence,) = sequences(40)
    assert planned(model, collate([sequence], pad_id=0)).form == "causal"
    assert_same(alone(model, sequence, attend=everything_before), alone(model, sequence))


def test_both_ways_takes_effect(model):
    """A prefix and a chunk, each longer than the window; by embeddings, since that is what slots are filled with."""
    facts = facts_of(model)
    window = facts.window if facts.types == ("sliding_attention",) else None
    block = [0] * 2 + [1] * 12 + [0] * 9 + [2] * 10 + [0]
    for sequence in (*sequences(34, block=block), *sequences(34)):
        batch = collate([sequence, *sequences(20)], pad_id=0, side="left")
        made = planned(model, batch)
        assert made.form == ("4d" if sequence.block.any() else "2d")
        inputs = model.get_input_embeddings()(batch.input_ids).detach()

        def forward(embeds, made=made):
            return model(inputs_embeds=embeds, **made.kwargs).logits

        effects = mask_takes_effect(
            forward, inputs, batch, window=window, layers=model.config.get_text_config().num_hidden_layers
        )
        noticed = [effect for effect in effects if any(index < effect.changed for index in effect.must)]
        assert [effect.changed for effect in noticed] == ([13, 32] if sequence.block.any() else [])
        assert all(effect.least_seen > 1e-4 for effect in noticed)
        assert all(effect.most_leaked < 1e-6 for effect in effects)


@pytest.mark.parametrize("steps", [(1, 1, 1), (4, 2)])
def test_cached_is_uncached(model, steps):
    """Left-padded rows natively, and a packed row by 4-D masks, through the family's own (rolling) cache."""
    parts = sequences(*LENGTHS)
    row = TokenSequence.join(parts, new_documents=True)
    for batch, form in ((collate(parts, pad_id=0, side="left"), "2d"), (collate([row], pad_id=0), "4d")):
        ids = torch.arange(batch.rows * sum(steps)).reshape(batch.rows, -1) + 20
        whole = batch.append(ids)
        expected = logits_of(model, whole, planned(model, whole))
        cache = DynamicCache(config=model.config)
        logits_of(model, batch, planned(model, batch, use_cache=True), past_key_values=cache)
        done = 0
        for count in steps:
            length = batch.length
            batch = batch.append(ids[:, done : done + count])
            made = planned(model, batch, cache_length=length, key_sizes=_key_sizes(model, cache, count))
            assert made.form == form
            logits = logits_of(model, batch, made, past_key_values=cache)
            assert_same(logits, expected[:, length : length + count])
            done += count


def _key_sizes(model, cache, queries: int) -> dict[str, tuple[int, int]]:
    facts = facts_of(model)
    types = facts.layer_types or facts.types
    return {name: cache.get_mask_sizes(queries, types.index(name)) for name in facts.types}


def test_bf16_within_a_stated_bound(eager):
    """Packed against alone: 8 bits of mantissa through a few layers leave 5 % of the largest logit."""
    parts = sequences(*LENGTHS)
    expected = torch.cat([alone(eager, part) for part in parts])
    half = AutoModelForCausalLM.from_config(eager.config, dtype=torch.bfloat16, attn_implementation="eager").eval()
    half.isolates = eager.isolates
    rotary = {name: buffer.clone() for name, buffer in eager.named_buffers()}
    half.load_state_dict(eager.state_dict())
    for name, buffer in half.named_buffers():
        buffer.data = rotary[name]
    batch = collate([TokenSequence.join(parts, new_documents=True)], pad_id=0)
    for options in ({}, {"use_cache": True}):
        made = planned(half, batch, **options)
        assert_same(logits_of(half, batch, made)[0].float(), expected, bound=0.05)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
def test_gradients_are_finite_through_padding(model, autocast):
    """A row that sees nothing gives NaN in some kernels; in a 4-D mask padding sees itself.

    Under autocast the mask of an fp32 model meets bf16 scores, where its lowest number becomes minus infinity.
    """
    batch = collate(sequences(*LENGTHS), pad_id=0, side="left")
    for options in ({}, {"attend": everything_before}):
        inputs = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = model(inputs_embeds=inputs, **planned(model, batch, **options).kwargs).logits
        logits[batch.attention_mask.bool()].float().square().mean().backward()
        assert torch.isfinite(logits).all()
        assert torch.isfinite(inputs.grad).all()
    model.zero_grad(set_to_none=True)


def documents_by_lengths(module, query, key, value, attention_mask, scaling=None, sliding_window=None, **kwargs):
    """What a variable-length flash kernel computes, one call a document: by lengths alone, all rows end to end."""
    bounds = kwargs["cu_seq_lens_q"].tolist()
    assert attention_mask is None
    assert kwargs["max_length_q"] == max(b - a for a, b in pairwise(bounds))
    groups = query.shape[1] // key.shape[1]
    flat = [t.transpose(0, 1).flatten(1, 2) for t in (query, key, value)]
    out = []
    for start, stop in pairwise(bounds):
        q, k, v = (t[:, start:stop] for t in flat)
        scores = q @ k.repeat_interleave(groups, 0).transpose(1, 2) * (scaling or q.shape[-1] ** -0.5)
        if kwargs.get("softcap"):
            scores = kwargs["softcap"] * (scores / kwargs["softcap"]).tanh()
        distance = torch.arange(stop - start)[:, None] - torch.arange(stop - start)
        seen = (distance >= 0) & (distance < (sliding_window or stop))
        out.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v.repeat_interleave(groups, 0))
    return torch.cat(out, 1).transpose(0, 1).unflatten(0, (len(query), -1)), None


AttentionInterface.register("documents_by_lengths", documents_by_lengths)
AttentionMaskInterface.register("documents_by_lengths", flash_attention_mask)


def test_lengths_for_flash_kernels_reach_attention(eager):
    """No such kernel runs on a CPU. A stand-in that knows nothing but the lengths must give the same logits."""
    parts = sequences(*LENGTHS)
    rows = [TokenSequence.join(parts, new_documents=True), TokenSequence.join(parts[:2], new_documents=True)]
    batch = collate(rows, pad_id=0)
    expected = torch.cat([alone(eager, part) for part in parts])
    facts = facts_of(eager)
    flash = AttentionFacts(**{**vars(facts), "kernel": "flash_attention_2"})
    if not facts.isolates_by_position:
        with pytest.raises(BackboneError, match="flash_attention_2 cannot take a 4-D"):
            plan_attention(batch, flash)
        return
    eager.set_attn_implementation("documents_by_lengths")
    made = plan_attention(batch, flash)
    got = logits_of(eager, batch, made)
    assert_same(got[0], expected)
    assert_same(got[1, : sum(LENGTHS[:2])], expected[: sum(LENGTHS[:2])])


def test_each_error_would_be_seen(eager):
    """What goes wrong without a plan is larger than the bound by orders of magnitude."""
    (sequence,) = sequences(33)
    parts = sequences(*LENGTHS)
    row = collate([TokenSequence.join(parts, new_documents=True)], pad_id=0)
    expected = torch.cat([alone(eager, part) for part in parts])
    facts = facts_of(eager)
    if facts.isolates_by_position:
        mixed = logits_of(eager, row, planned(eager, row), past_key_values=DynamicCache())[0]
    else:
        mixed = eager(row.input_ids, position_ids=row.position_ids, use_cache=False).logits[0]
    assert (mixed - expected).abs().max() > 1e-2 * expected.abs().max()
    if facts.windowed:
        batch = collate([sequence], pad_id=0)
        lost = plan_attention(batch, AttentionFacts(kernel="eager"), attend=everything_before)
        right = alone(eager, sequence)
        assert (logits_of(eager, batch, lost)[0] - right).abs().max() > 1e-2 * right.abs().max()


def test_a_kernel_that_a_family_lacks_is_refused():
    """Not run as another one: transformers itself says no, and the backbone hands that on."""
    for family in TINY:
        if "sdpa" not in kernels_of(family):
            with pytest.raises(ValueError, match="does not support"):
                load(family).set_attn_implementation("sdpa")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_an_encoder_sees_both_ways_by_nature(kernel):
    model = AutoModelForMaskedLM.from_pretrained(
        tiny_checkpoint("tiny-bert"), dtype=torch.float32, attn_implementation=kernel
    ).eval()
    facts = AttentionFacts(kernel=kernel, causal=False, max_positions=512)

    def alone_in(part):
        batch = collate([part], pad_id=0)
        made = plan_attention(batch, facts)
        assert made.form == "full"
        return logits_of(model, batch, made)[0]

    parts = sequences(*LENGTHS, block=1)
    batch = collate(parts, pad_id=0)
    for options, form in (({}, "2d"), ({"attend": lambda q, k: q.document == k.document}, "4d")):
        made = plan_attention(batch, facts, **options)
        assert made.form == form
        logits = logits_of(model, batch, made)
        for row, part in enumerate(parts):
            assert_same(logits[row, : len(part)], alone_in(part))
    packed = collate([TokenSequence.join(parts, new_documents=True)], pad_id=0)
    made = plan_attention(packed, facts)
    assert made.form == "4d"
    assert_same(logits_of(model, packed, made)[0], torch.cat([alone_in(part) for part in parts]))

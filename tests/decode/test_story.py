"""A story of documents: three ways in which injecting inside `forward` fails from the second token on, and ours.

The prompt is text, then slots whose embeddings come from boxes. Each of the three models does what was really done; all
are right at the first token, so that nothing is seen before an answer is read.
"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaForCausalLM

from tests.model.models import batch_of, build, slots, text
from vertebra.decode.call import generate
from vertebra.sequence.tokens import TokenSequence

SLOT = 5
"""The id that marks a box in the prompt."""


class Injecting(LlamaForCausalLM):
    """Looks for slots by their id in every forward, as `generate` sends the boxes again at every step."""

    how = "assign"

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, box_features=None, **words
    ):
        if self.how == "blind" and past_key_values is not None:
            input_ids = input_ids[:, -1:]  # "we have a cache, so only the last token is new": the cache is empty
        embeds = self.get_input_embeddings()(input_ids)
        if box_features is not None:
            if self.how == "assign":
                embeds[input_ids == SLOT] = box_features.flatten(0, 1)
            elif self.how == "where":
                full = torch.zeros(1, self.length, embeds.shape[-1])
                full[:, self.mask] = box_features
                embeds = torch.where(self.mask[None, :, None], full, embeds)
        return super().forward(inputs_embeds=embeds, past_key_values=past_key_values, **words)

    def prepare_inputs_for_generation(self, input_ids, inputs_embeds=None, box_features=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        inputs.pop("inputs_embeds", None)
        return {**inputs, "box_features": box_features}  # sent again at every step


@pytest.fixture
def document():
    """A model, a page of boxes and their embeddings."""
    model = build("tiny-llama2", inference_mode=True, weights=True).eval()
    sequence = TokenSequence.join([text(6, 1), slots("boxes", 4), text(3, 2)])
    features = {"boxes": [[10 * i, 10, 20 * i + 5, 30] for i in range(4)]}
    with torch.no_grad():
        embedded = model.parts["boxes"](torch.tensor(features["boxes"])).flatten(0, 1)[None]
    return model, sequence, features, embedded


def historical(model, sequence, how: str) -> Injecting:
    llm = Injecting(model.backbone.llm.config)
    llm.load_state_dict(model.backbone.llm.state_dict())
    llm.how, llm.mask, llm.length = how, torch.tensor(sequence.ids == SLOT), len(sequence)
    return llm.eval()


def run(llm, sequence, embedded, new: int, cache=None):
    ids = torch.tensor(sequence.ids)[None]
    return llm.generate(
        ids, attention_mask=torch.ones_like(ids), box_features=embedded, past_key_values=cache, max_new_tokens=new,
        do_sample=False, eos_token_id=2**31, pad_token_id=0,
    )[0, len(sequence) :].tolist()  # fmt: skip


def truth(model, sequence, features):
    batch = batch_of(model, [(sequence, features)])
    return generate(model, batch, max_new_tokens=4, eos_token_id=(), use_cache=False).tokens[0]


def test_assignment_fails_at_the_second_step(document):
    model, sequence, features, embedded = document
    expected = truth(model, sequence, features)
    llm = historical(model, sequence, "assign")
    assert run(llm, sequence, embedded, 1) == expected[:1]
    with pytest.raises((RuntimeError, IndexError)):
        run(llm, sequence, embedded, 2)


def test_where_tells_one_token_to_the_whole_prompt(document):
    """No error: the new token is broadcast, and the cache grows by the whole prompt at every step."""
    model, sequence, features, embedded = document
    expected = truth(model, sequence, features)
    cache = DynamicCache(config=model.backbone.llm.config)
    output = run(historical(model, sequence, "where"), sequence, embedded, 4, cache)
    assert output[0] == expected[0]
    assert output != expected
    assert cache.get_seq_length() == 4 * len(sequence)  # and not len(sequence) + 3


def test_a_cache_that_is_there_but_empty_makes_it_blind(document):
    """The prompt is dropped, and every document has the same answer."""
    model, sequence, features, embedded = document
    llm = historical(model, sequence, "blind")
    output = run(llm, sequence, embedded * 0, 4)
    other = TokenSequence.join([text(8, 7), slots("boxes", 4), text(2, 8), sequence.cut(len(sequence) - 1)])
    assert run(llm, other, embedded * 0, 4) == output
    assert output != truth(model, sequence, features)


def test_ours(document):
    model, sequence, features, _ = document
    batch = batch_of(model, [(sequence, features)])
    result = generate(model, batch, max_new_tokens=4, eos_token_id=(), keep_state=True)
    assert result.tokens[0] == truth(model, sequence, features)
    assert result.state.length == len(sequence) + 3
    assert generate(model, batch, engine="hf", max_new_tokens=4, eos_token_id=()).tokens == result.tokens

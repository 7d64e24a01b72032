"""A story: somebody's own document model works only with the cache off; why it fails, and what makes it right.

The model takes `bbox` and `pixel_values` in `forward` and puts them where the ids say so, as such models do. The
reference is a plain loop without any cache, written here, through the model's own unchanged forward.
"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from vertebra import inject_at_prefill
from vertebra.errors import ConfigError, InjectionError, UnknownNameError

BOX, PATCH = 64, 65
"""Placeholder ids outside of the vocabulary, which has 64: such models have them."""
SIZE = 32


class DocumentModel(LlamaForCausalLM):
    """Written for `use_cache=False`: whatever ids come in, their placeholders are filled with the whole page."""

    def __init__(self, config):
        super().__init__(config)
        self.box = torch.nn.Linear(4, config.hidden_size)
        self.patch = torch.nn.Conv2d(3, config.hidden_size, 8, 8)

    def boxes(self, bbox):
        return self.box(bbox.float() / 500 - 1).flatten(0, 1)

    def patches(self, pixel_values):
        return self.patch(pixel_values).flatten(2).transpose(1, 2).flatten(0, 1)

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
        use_cache=None, bbox=None, pixel_values=None, logits_to_keep=0, **kwargs,
    ):  # fmt: skip
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids.clamp(max=self.config.vocab_size - 1))
            if bbox is not None:
                inputs_embeds[input_ids == BOX] = self.boxes(bbox)
            if pixel_values is not None:
                inputs_embeds[input_ids == PATCH] = self.patches(pixel_values)
        return super().forward(
            attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
            inputs_embeds=inputs_embeds, use_cache=use_cache, logits_to_keep=logits_to_keep, **kwargs,
        )  # fmt: skip

    def tables(self, input_ids, bbox, pixel_values):
        """What a user writes for the hook: the same features, as a table of (row, absolute position)."""
        mask = (input_ids == BOX) | (input_ids == PATCH)
        embeds = torch.zeros(*input_ids.shape, self.config.hidden_size)
        embeds[input_ids == BOX] = self.boxes(bbox)
        embeds[input_ids == PATCH] = self.patches(pixel_values)
        return mask, embeds


class Additive(DocumentModel):
    """The form that never fails: it adds, and broadcasts one new token over the whole page."""

    def forward(self, input_ids=None, inputs_embeds=None, bbox=None, pixel_values=None, **kwargs):
        if inputs_embeds is None and bbox is not None:
            inputs_embeds = self.get_input_embeddings()(input_ids.clamp(max=63)) + self.boxes(bbox)[None]
            input_ids = None
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)


class Blind(DocumentModel):
    """Its override was written for transformers 4, where a first step had no cache."""

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, inputs_embeds=None, bbox=None, pixel_values=None,
        **kwargs,
    ):  # fmt: skip
        if past_key_values is not None:
            input_ids, bbox, pixel_values = input_ids[:, -1:], None, None
        return {
            "input_ids": input_ids, "past_key_values": past_key_values, "attention_mask": attention_mask,
            "bbox": bbox, "pixel_values": pixel_values, "use_cache": kwargs.get("use_cache"),
        }  # fmt: skip


def model_of(cls=DocumentModel):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=SIZE, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return cls(config).eval()


def pages(rows: int = 1, seed: int = 0):
    """Pages of four patches and two boxes; later rows have shorter questions, padded on the left."""
    torch.manual_seed(seed + 100)
    page = [1, PATCH, PATCH, PATCH, PATCH, 5, 6, BOX, 7, 8, BOX, 9]
    ids = torch.tensor([[0] * row + page + [20 + row] * (4 - row) for row in range(rows)])
    corners = torch.randint(0, 1001, (rows, 2, 2, 2)).sort(2).values.flatten(2)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "bbox": corners,
        "pixel_values": torch.rand(rows, 3, 16, 16) * 4 - 2,
    }


@torch.no_grad()
def without_cache(model, given, count=8, choose=lambda logits: logits.argmax(-1)):
    """Every step runs the whole sequence again through the model's own forward."""
    ids, mask = given["input_ids"], given["attention_mask"]
    for _ in range(count):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, bbox=given["bbox"],
            pixel_values=given["pixel_values"], use_cache=False,
        ).logits  # fmt: skip
        ids = torch.cat([ids, choose(logits[:, -1])[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return ids


def ask(model, given, **options):
    return model.generate(**given, **{"max_new_tokens": 8, "do_sample": False, **options})


class TestTheFailure:
    def test_step_two_has_one_token_and_the_whole_page(self):
        """`generate` sends `bbox` again at every step, and drops `pixel_values` by a list of names."""
        with pytest.raises(RuntimeError, match=r"shape mismatch: value tensor of shape \[2, 32\]"):
            ask(model_of(), pages())

    def test_turning_the_cache_off_cures_just_that(self):
        model, given = model_of(), pages()
        assert torch.equal(ask(model, given, use_cache=False), without_cache(model, given))

    def test_the_additive_form_corrupts_the_cache_in_silence(self):
        model, given = model_of(Additive), pages()
        given = {name: given[name] for name in ("input_ids", "attention_mask")}
        given["bbox"] = torch.randint(0, 1001, (1, given["input_ids"].shape[1], 4))
        cache = DynamicCache(config=model.config)
        ask(model, given, past_key_values=cache, max_new_tokens=3)
        length = given["input_ids"].shape[1]
        assert cache.get_seq_length() == 3 * length  # and should be length + 2

    def test_the_older_override_never_sees_the_page(self):
        model = model_of(Blind)
        answers = [ask(model, pages(seed=seed))[:, -8:] for seed in (0, 1, 2)]
        assert torch.equal(answers[0], answers[1])
        assert torch.equal(answers[0], answers[2])
        assert not torch.equal(without_cache(model, pages(seed=0)), without_cache(model, pages(seed=1)))


@pytest.fixture(params=[DocumentModel, Blind])
def cured(request):
    """The model with the hook, and one without it for the reference."""
    model, plain = model_of(request.param), model_of()
    inject_at_prefill(model, model.tables)
    return model, plain


class TestTheCure:
    @pytest.mark.parametrize("rows", [1, 3])
    def test_greedy_and_left_padded(self, cured, rows):
        model, plain = cured
        for seed in range(3):
            given = pages(rows, seed)
            assert torch.equal(ask(model, given), without_cache(plain, given))

    def test_different_pages_give_different_answers(self, cured):
        model, _ = cured
        assert not torch.equal(ask(model, pages(seed=0)), ask(model, pages(seed=1)))

    def test_the_encoder_runs_once(self, cured):
        model, _ = cured
        calls = []
        model.patch.register_forward_hook(lambda *_: calls.append(1))
        ask(model, pages(2))
        assert len(calls) == 1

    def test_sampling_with_a_seed(self, cured):
        model, plain = cured
        given = pages(3)
        torch.manual_seed(5)
        sampled = ask(model, given, do_sample=True, temperature=1.3, top_k=0)
        torch.manual_seed(5)

        def draw(logits):
            return torch.multinomial((logits / 1.3).softmax(-1), 1)[:, 0]

        assert torch.equal(sampled, without_cache(plain, given, choose=draw))

    def test_beams(self, cured):
        model, plain = cured
        given = pages(2)
        expected = ask(plain, given, num_beams=3, use_cache=False, num_return_sequences=2)
        assert torch.equal(ask(model, given, num_beams=3, num_return_sequences=2), expected)

    def test_chunks_cut_the_page_in_the_middle(self, cured):
        model, plain = cured
        given = pages(2)
        for size in (3, 5, 9):
            assert torch.equal(ask(model, given, prefill_chunk_size=size), without_cache(plain, given))

    def test_a_static_cache(self, cured):
        model, plain = cured
        given = pages(2)
        made = ask(model, given, cache_implementation="static", disable_compile=True)
        assert torch.equal(made, without_cache(plain, given))

    def test_two_pages_take_turns(self, cured):
        model, plain = cured
        both = [pages(seed=seed) for seed in (0, 1)]
        caches = [DynamicCache(config=model.config) for _ in both]
        ids = [given["input_ids"] for given in both]
        for turn in (0, 1, 1, 0):
            given, cache = both[turn], caches[turn]
            given = {**given, "input_ids": ids[turn], "attention_mask": torch.ones_like(ids[turn])}
            # the page's table covers its own positions; what was answered since lies beyond it
            ids[turn] = ask(model, given, past_key_values=cache, max_new_tokens=4)
        for turn in (0, 1):
            assert torch.equal(ids[turn], without_cache(plain, both[turn]))

    def test_training_is_what_it_was(self, cured):
        model, plain = cured
        given = pages(2)
        assert torch.equal(model(**given).logits, plain(**given).logits)

    def test_text_alone(self, cured):
        model, plain = cured
        ids = torch.tensor([[1, 5, 6, 7]])
        expected = LlamaForCausalLM.generate(plain, ids, max_new_tokens=4, do_sample=False)
        if isinstance(model, Blind):
            expected = ask(model, {"input_ids": ids}, max_new_tokens=4)
        assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), expected)

    def test_taken_off_again(self):
        model = model_of()
        undo = inject_at_prefill(model, model.tables)
        ask(model, pages())
        undo()
        assert not {"forward", "generate", "prepare_inputs_for_generation"} & set(vars(model))
        with pytest.raises(RuntimeError, match="shape mismatch"):
            ask(model, pages())


class TestACellRunAgain:
    def test_the_new_hook_takes_the_place_of_the_old(self):
        model, plain, given = model_of(), model_of(), pages(2)
        calls = []

        def blank(input_ids, bbox, pixel_values):
            calls.append(1)
            mask, embeds = model.tables(input_ids, bbox, pixel_values)
            return mask, torch.zeros_like(embeds)

        first = inject_at_prefill(model, blank)
        assert not torch.equal(ask(model, given), without_cache(plain, given))
        second = inject_at_prefill(model, model.tables)
        assert torch.equal(ask(model, given), without_cache(plain, given))
        assert len(calls) == 1
        first()  # what was replaced is off already
        assert torch.equal(ask(model, given), without_cache(plain, given))
        second()
        second()
        assert not {"forward", "generate", "prepare_inputs_for_generation"} & set(vars(model))

    def test_two_models_of_one_class(self):
        one, other, given = model_of(), model_of(), pages()
        undo = inject_at_prefill(one, one.tables)
        inject_at_prefill(other, other.tables)
        undo()
        assert torch.equal(ask(other, given), without_cache(model_of(), given))
        with pytest.raises(RuntimeError, match="shape mismatch"):
            ask(one, given)

    def test_what_stood_on_the_model_comes_back(self):
        """Libraries that place a model on devices set a `forward` of their own on it."""
        model = model_of()
        own = model.forward
        model.forward = own
        inject_at_prefill(model, model.tables)()
        assert model.forward is own


class TestMistakes:
    def test_a_name_that_exists_nowhere(self):
        model = model_of()
        with pytest.raises(UnknownNameError, match=r"unknown payload `pixelvalues`\. Did you mean `pixel_values`"):
            inject_at_prefill(model, model.tables, payload=("bbox", "pixelvalues"))
        assert "generate" not in vars(model)

    def test_no_model(self):
        with pytest.raises(ConfigError, match="got the class DocumentModel; expected a model that was made"):
            inject_at_prefill(DocumentModel, DocumentModel.tables)
        with pytest.raises(ConfigError, match="got a Linear"):
            inject_at_prefill(torch.nn.Linear(2, 2), DocumentModel.tables)

    def test_a_forward_without_embeddings(self):
        model = model_of()
        model.forward = lambda input_ids, attention_mask: None
        with pytest.raises(ConfigError, match="takes input_ids, attention_mask, and no `inputs_embeds`"):
            inject_at_prefill(model, model.tables)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda mask, embeds: (mask[:, :3], embeds[:, :3]), r"mask of bool \[2, 3\] and embeddings \[2, 3, 32\]"),
            (lambda mask, embeds: (mask[:1], embeds[:1]), r"mask of bool \[1, 16\]"),
            (lambda mask, embeds: (mask, embeds[..., :7]), r"\[2, 16, 7\]; expected bool \[2, 16\], .* \[2, 16, 32\]"),
            (lambda mask, embeds: (mask.long(), embeds), r"mask of int64"),
            (lambda mask, embeds: mask, "returned a Tensor; expected two tensors"),
            (lambda mask, embeds: None, "returned a NoneType"),
        ],
    )  # fmt: skip
    def test_tables_of_a_wrong_shape(self, change, message):
        model = model_of()
        inject_at_prefill(model, lambda input_ids, **page: change(*model.tables(input_ids, **page)))
        with pytest.raises(InjectionError, match=message):
            ask(model, pages(2))

    def test_a_page_without_an_image(self):
        """Tables that need one say so; tables that do without give what a plain loop gives."""
        model, plain, given = model_of(), model_of(), pages(2)
        del given["pixel_values"]
        undo = inject_at_prefill(model, model.tables)
        with pytest.raises(InjectionError, match="needs `pixel_values`, and this call gives bbox alone"):
            ask(model, given)
        undo()

        def lenient(input_ids, bbox, pixel_values=None):
            mask = input_ids == BOX
            embeds = torch.zeros(*input_ids.shape, SIZE)
            embeds[mask] = model.boxes(bbox)
            return mask, embeds

        inject_at_prefill(model, lenient)
        with pytest.raises(InjectionError, match=r"id 65 in row 0, column 1 is beyond the 64 rows .*\(8 such places"):
            ask(model, given)
        given["input_ids"] = given["input_ids"].masked_fill(given["input_ids"] == PATCH, 30)
        assert torch.equal(ask(model, given), without_cache(plain, {**given, "pixel_values": None}))

    def test_a_page_without_ids(self):
        model = model_of()
        inject_at_prefill(model, model.tables)
        given = pages()
        del given["input_ids"]
        with pytest.raises(InjectionError, match="came without `input_ids`"):
            model.generate(**given, inputs_embeds=torch.zeros(1, 16, SIZE), max_new_tokens=2)

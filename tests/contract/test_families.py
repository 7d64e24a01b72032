"""The contract that every family keeps, walked over every row of the table on its tiny real checkpoint."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import transformers
from torch import nn

from vertebra import LLMBackbone
from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.backbone.families.models import FAMILIES, MODELS, builder_name
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.registry import prompt_builder

TINY_NAMES = list(TINY)


@cache
def trained(name: str) -> HFCausalLLMBackbone:
    return load_backbone(name, dtype="float32")


@pytest.mark.parametrize("row", MODELS.values(), ids=lambda row: row.id)
def test_every_row_names_a_family_a_class_and_a_builder(row):
    family = FAMILIES[row.family]
    assert "/" in row.hub
    llm_cls = getattr(transformers, family.llm_cls)
    assert llm_cls.config_class.model_type == family.model_type
    assert issubclass(prompt_builder(builder_name(family, row.id)), PromptBuilder)


def test_every_family_has_a_tiny_checkpoint_and_a_model():
    assert {spec.family for spec in TINY.values()} == set(FAMILIES) == {row.family for row in MODELS.values()}


@pytest.mark.parametrize("name", TINY_NAMES)
class TestMembers:
    """Every member answers from the family's own facts."""

    def test_is_a_backbone_with_its_attributes(self, name):
        backbone = trained(name)
        assert isinstance(backbone, LLMBackbone)
        assert backbone.identifier == name
        assert backbone.llm_family == TINY[name].family
        assert backbone.llm_max_length == 2048
        assert backbone.inference_mode is False
        assert backbone.get_tokenizer() is backbone.tokenizer
        assert type(backbone.llm).__name__ == FAMILIES[backbone.llm_family].llm_cls
        assert not backbone.facts_guessed

    def test_layers(self, name):
        backbone = trained(name)
        layer_cls = backbone.transformer_layer_cls
        assert layer_cls.__name__ == FAMILIES[backbone.llm_family].layer_cls
        assert len(backbone.layers) == backbone.llm.config.num_hidden_layers
        assert all(type(layer) is layer_cls for layer in backbone.layers)
        assert (backbone.final_norm is None) is (name == "tiny-opt-narrow")

    def test_last_layer_modules(self, name):
        backbone = trained(name)
        embedding, layer, head = backbone.last_layer_finetune_modules
        assert embedding is backbone.llm.get_input_embeddings()
        assert layer is backbone.layers[-1]
        assert head is backbone.llm.get_output_embeddings()

    def test_widths(self, name):
        backbone = trained(name)
        assert backbone.embed_dim == backbone.llm.config.hidden_size
        ids = torch.tensor([[3, 5, 7]])
        embedded = backbone.embed_input_ids(ids)
        assert embedded.shape == (1, 3, backbone.embedding_width)
        narrow = name == "tiny-opt-narrow"
        assert (backbone.embedding_width < backbone.embed_dim) is narrow

    def test_pad_ends_nothing(self, name):
        backbone = trained(name)
        assert backbone.pad_token_id not in backbone.eos_token_ids
        assert backbone.pad_token_id < backbone.num_rows
        assert backbone.llm.config.pad_token_id == backbone.pad_token_id
        assert backbone.llm.get_input_embeddings().padding_idx in (None, backbone.pad_token_id)

    def test_anchor_is_what_the_tokenizer_does(self, name):
        backbone = trained(name)
        first = backbone.tokenizer("hello").input_ids[0]
        assert (first == backbone.habits.bos_id) is (backbone.anchor == "bos")

    def test_prompt_builder(self, name):
        backbone = trained(name)
        assert issubclass(backbone.prompt_builder_fn, PromptBuilder)

    def test_fsdp_policy_wraps_exactly_the_layers(self, name):
        backbone = trained(name)
        policy = backbone.get_fsdp_wrapping_policy()
        wrapped = [m for m in backbone.llm.modules() if policy(module=m, recurse=False, nonwrapped_numel=0)]
        assert wrapped == list(backbone.layers)

    def test_half_precision_is_a_16_bit_type(self, name):
        assert trained(name).half_precision_dtype in (torch.bfloat16, torch.float16)

    def test_attention_facts_follow_the_config(self, name):
        backbone = trained(name)
        facts = backbone.attention_facts
        assert facts.kernel == backbone.attn
        windowed = {"tiny-mistral", "tiny-phi3", "tiny-gemma2", "tiny-gemma3"}
        assert (facts.window == 8) is (name in windowed)
        learned = name in {"tiny-opt", "tiny-opt-narrow", "tiny-gpt2"}
        assert (facts.max_positions is not None) is learned


@pytest.mark.parametrize("name", TINY_NAMES)
class TestForward:
    def test_embeddings_and_ids_agree_and_nothing_unasked_comes_back(self, name):
        backbone = trained(name).eval()
        ids = torch.tensor([backbone.tokenizer("Move the arm to the left.").input_ids])
        with torch.no_grad():
            out = backbone(ids)
            embedded = backbone(inputs_embeds=backbone.embed_input_ids(ids))
        torch.testing.assert_close(out.logits, embedded.logits)
        assert (out.loss, out.past_key_values, out.hidden_states, out.attentions) == (None,) * 4

    def test_everything_that_is_asked_comes_back(self, name):
        backbone = trained(name).eval()
        ids = torch.tensor([backbone.tokenizer("Move the arm to the left.").input_ids])
        layers, length = backbone.llm.config.num_hidden_layers, ids.shape[1]
        with torch.no_grad():
            plain = backbone(ids)
            out = backbone(ids, use_cache=True, output_attentions=True, output_hidden_states=True, logits_to_keep=2)
        assert out.logits.shape[1] == 2
        assert out.past_key_values.get_seq_length() == length
        assert len(out.hidden_states) == layers + 1
        assert len(out.attentions) == layers
        assert out.attentions[0].shape[-2:] == (length, length)
        torch.testing.assert_close(out.logits, plain.logits[:, -2:], atol=1e-4, rtol=1e-4)

    def test_loss_is_the_mean_unless_items_are_counted(self, name):
        backbone = trained(name).eval()
        ids = torch.tensor([backbone.tokenizer("Move the arm to the left.").input_ids])
        with torch.no_grad():
            logits = backbone(ids).logits.float()
            mean = backbone(ids, labels=ids).loss
            counted = backbone(ids, labels=ids, num_items_in_batch=50).loss
        total = nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
        torch.testing.assert_close(mean, total / (ids.shape[1] - 1))
        torch.testing.assert_close(counted, total / 50)

    def test_left_padding_needs_no_position_ids(self, name):
        backbone = trained(name).eval()
        ids = torch.tensor([backbone.tokenizer("Move the arm to the left, " * 4).input_ids])
        pad = torch.full((1, 5), backbone.pad_token_id)
        mask = torch.cat([torch.zeros_like(pad), torch.ones_like(ids)], dim=1)
        with torch.no_grad():
            alone = backbone(ids).logits
            padded = backbone(torch.cat([pad, ids], dim=1), mask).logits[:, 5:]
        torch.testing.assert_close(alone, padded, atol=2e-4, rtol=1e-4)

    @pytest.mark.parametrize("what", ["frozen", "low rank", "full"])
    def test_gradients_arrive_with_checkpointing(self, name, what):
        backbone = load_backbone(name, dtype="float32").train()
        backbone.enable_gradient_checkpointing()
        ids = torch.tensor([backbone.tokenizer("Move the arm.").input_ids])
        backbone.requires_grad_(what == "full")
        if what == "frozen":  # a projector outside, through embeddings
            outside = torch.randn(1, 4, backbone.embedding_width, requires_grad=True)
            inputs = torch.cat([outside, backbone.embed_input_ids(ids)], dim=1)
            backbone(inputs_embeds=inputs).logits.sum().backward()
            watched = {"outside": outside}
        else:
            if what == "low rank":  # one weight deep inside stands for an adapter
                next(p for p in backbone.layers[0].parameters() if p.dim() == 2).requires_grad_(True)
            backbone(ids, labels=ids).loss.backward()
            watched = {n: p for n, p in backbone.llm.named_parameters() if p.requires_grad}
        unreached = [n for n, p in watched.items() if p.grad is None or not p.grad.isfinite().all()]
        assert watched
        assert not unreached

"""A subclass with the abstract members alone goes everywhere where ours go, or one error says what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.backbone.foreign import ForeignBackbone
from vertebra import LLMBackbone, Model, TokenSequence, generate, grow_vocabulary, load_backbone, undo_growth
from vertebra.backbone import tiny_checkpoint
from vertebra.checks import check_backbone
from vertebra.errors import BackboneError
from vertebra.model import PatchEncoder, new_part


@pytest.fixture
def foreign() -> ForeignBackbone:
    return ForeignBackbone("somebodys-gpt2", str(tiny_checkpoint("tiny-gpt2"))).eval()


def test_it_is_short_and_overrides_nothing():
    lines = (Path(__file__).parent / "foreign.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 60
    own = {name for name in vars(ForeignBackbone) if not name.startswith("_")}
    assert own == set(LLMBackbone.__abstractmethods__)


def test_every_member_that_ours_has_answers_alike(foreign):
    """Public members of our class that are not about loading: the two must agree on the same checkpoint."""
    ours = load_backbone("tiny-gpt2", dtype="float32")
    for name in ("anchor", "habits", "attn", "dtype", "device", "eos_token_ids", "embed_dim", "embedding_width"):
        assert getattr(foreign, name) == getattr(ours, name), name
    assert foreign.num_rows == len(foreign.tokenizer) == foreign.pad_token_id + 1
    assert (len(foreign.layers), type(foreign.final_norm)) == (len(ours.layers), type(ours.final_norm))
    assert foreign.attention_facts.kernel == ours.attention_facts.kernel
    assert (foreign.builder, len(foreign.growths), foreign.inference_mode) == ("pure", 1, False)


def test_it_decodes(foreign):
    ours = load_backbone("tiny-gpt2", dtype="float32").eval()
    prompt = TokenSequence.of(foreign.tokenizer("Move the arm to the left, then").input_ids)
    answer = generate(foreign, prompt, max_new_tokens=8).tokens
    assert answer == generate(ours, prompt, max_new_tokens=8).tokens
    assert answer == generate(foreign, prompt, max_new_tokens=8, engine="hf").tokens
    shown = generate(foreign, prompt, max_new_tokens=2, output_attentions=True)
    assert shown.tokens[0] == answer[0][:2]


def test_it_grows_and_comes_back(foreign):
    before = foreign.llm.transformer.wte.weight.detach().clone()
    growth = grow_vocabulary(foreign, ["<ACT>"], only_new_trainable=True)
    assert foreign.tokenizer("<ACT>").input_ids == list(growth.ids)
    assert undo_growth(foreign) == growth
    assert torch.equal(foreign.llm.transformer.wte.weight, before)


def test_it_passes_every_check_and_saves(foreign, tmp_path):
    report = check_backbone(foreign)
    assert report.failed == ()
    assert foreign.save(tmp_path / "m") == tmp_path / "m"
    again = load_backbone(tmp_path / "m", dtype="float32").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, foreign(ids).logits)
    assert (again.identifier, again.pad_token_id) == ("somebodys-gpt2", foreign.pad_token_id)


def test_it_carries_a_multimodal_model(foreign, tmp_path):
    image = new_part(foreign, PatchEncoder(16, image_size=8, patch_size=4))
    model = Model(foreign, {"image": image})
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    sequence = model.render([question, {"role": "assistant", "content": "A cup."}])
    pixels = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    model(**model.collate([sequence], [{"image": pixels}])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parts.parameters())


class Lacking(ForeignBackbone):
    """Built around a plain module instead of a model of transformers."""

    def __init__(self, llm: nn.Module | None) -> None:
        LLMBackbone.__init__(self, "plain")
        if llm is not None:
            self.llm = llm


@pytest.mark.parametrize("llm", [None, nn.Linear(2, 2)], ids=["nothing", "a plain module"])
def test_one_error_names_all_that_is_lacking(llm):
    backbone = Lacking(llm)
    names = "tokenizer, llm" if llm is None else r"tokenizer, llm\.config, .*, llm\.get_output_embeddings"
    uses = {
        "generate": lambda: generate(backbone, TokenSequence.of([1, 2]), max_new_tokens=1),
        "check": lambda: check_backbone(backbone),
        "grow": lambda: grow_vocabulary(backbone, ["<ACT>"]),
        "save": lambda: backbone.save("nowhere"),
        "read": lambda: backbone.attention_facts,
    }
    for use in uses.values():
        with pytest.raises(BackboneError, match=rf"`plain` \(Lacking\) .* lacks {names}\. .*set `self\.llm`"):
            use()

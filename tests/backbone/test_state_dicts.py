"""A state dict into a bare structure, in the order in which OpenVLA-era code loads: build, `torch.load`, copy, run."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.backbone.weights import left_on_meta
from vertebra.decode.call import generate
from vertebra.errors import BackboneError
from vertebra.sequence.tokens import TokenSequence


class Whole(nn.Module):
    """A vision-language model as old code writes it: the backbone is a child, `from_pretrained` loads part by part."""

    def __init__(self, llm_backbone: nn.Module) -> None:
        super().__init__()
        self.llm_backbone = llm_backbone
        self.projector = nn.Linear(4, 64)

    @classmethod
    def from_pretrained(cls, file, llm_backbone) -> Whole:
        whole = cls(llm_backbone)
        parts = torch.load(file, map_location="cpu")["model"]
        whole.projector.load_state_dict(parts["projector"])
        whole.llm_backbone.load_state_dict(parts["llm_backbone"])
        whole.requires_grad_(False)
        return whole.eval()


def structure(name: str, **options):
    return load_backbone(name, inference_mode=True, **{"dtype": "float32", **options})


@pytest.mark.parametrize("name", list(TINY))
def test_the_original_order_loads_and_generates(shared, ids, tmp_path, name):
    trained = shared(name)
    parts = {"projector": Whole(trained).projector.state_dict(), "llm_backbone": trained.state_dict()}
    torch.save({"model": parts}, tmp_path / "latest.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = Whole.from_pretrained(tmp_path / "latest.pt", structure(name))
    backbone, row = whole.llm_backbone, ids(trained)
    assert not left_on_meta(whole)
    with torch.no_grad():
        assert torch.equal(backbone(row).logits, trained(row).logits)
    prompt = TokenSequence.of(row[0].numpy())
    answers = [generate(model.eval(), prompt, max_new_tokens=4).tokens for model in (backbone, trained)]
    assert answers[0] == answers[1]
    embedding, head = backbone.llm.get_input_embeddings(), backbone.llm.get_output_embeddings()
    tied = trained.llm.get_output_embeddings().weight is trained.llm.get_input_embeddings().weight
    assert (head.weight is embedding.weight) is tied


def doors(whole: Whole) -> dict[str, nn.Module]:
    """Every module that can be handed the language model's part, and what its names begin with there."""
    return {
        "": whole.llm_backbone.llm,
        "llm.": whole.llm_backbone,
        "llm_backbone.llm.": whole,
    }


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
@pytest.mark.parametrize("prefix", ["", "llm.", "llm_backbone.llm."])
@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-phi2"])
def test_every_door_takes_it(shared, ids, name, prefix, strict, assign):
    """Tied heads too, whether the dictionary names them once, as files do, or twice, as `state_dict()` does."""
    trained, row = shared(name), ids(shared(name))
    both = trained.llm.state_dict()
    once = {key: value for key, value in both.items() if not (key == "lm_head.weight" and name == "tiny-qwen2.5")}
    for given in (both, once):
        whole = Whole(structure(name))
        named = {prefix + key: value.clone() for key, value in given.items()}
        if prefix == "llm_backbone.llm.":
            named |= {f"projector.{key}": value for key, value in whole.projector.state_dict().items()}
        keys = list(named)
        loaded = doors(whole)[prefix].load_state_dict(named, strict=strict, assign=assign)
        assert (loaded.missing_keys, loaded.unexpected_keys) == ([], [])
        assert list(named) == keys, "the caller's dictionary is the caller's"
        with torch.no_grad():
            assert torch.equal(whole.llm_backbone(row).logits, trained(row).logits)
        llm = whole.llm_backbone.llm
        assert (llm.lm_head.weight is llm.get_input_embeddings().weight) is (name == "tiny-qwen2.5")


def test_a_part_by_itself_and_dictionaries_in_pieces(shared, ids):
    """Shards one after the other, or the layers and the head by their own modules: what is still missing is named."""
    trained = shared("tiny-llama2")
    given = trained.llm.state_dict()
    pieces = structure("tiny-llama2")
    names = list(given)
    for number in range(3):
        with pytest.raises(BackboneError, match=rf"lacks|no weights yet \({len(names)}"):
            pieces(ids(trained))
        pieces.llm.load_state_dict({key: given[key] for key in names[number::3]}, strict=False)
    by_module = structure("tiny-llama2")
    by_module.llm.model.load_state_dict(trained.llm.model.state_dict())
    with pytest.raises(BackboneError, match=r"lacks 1 of 21 tensors.*lm_head\.weight"):
        by_module(ids(trained))
    by_module.llm.lm_head.load_state_dict(trained.llm.lm_head.state_dict())
    with torch.no_grad():
        for loaded in (pieces, by_module):
            assert torch.equal(loaded(ids(trained)).logits, trained(ids(trained)).logits)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_the_structure_keeps_its_type(shared, stored):
    given = {key: value.to(stored) for key, value in shared("tiny-llama2").llm.state_dict().items()}
    for expected in ("float32", "bfloat16"):
        backbone = structure("tiny-llama2", dtype=expected)
        backbone.llm.load_state_dict(given)
        for key, parameter in backbone.llm.named_parameters():
            assert str(parameter.dtype) == f"torch.{expected}"
            assert torch.equal(parameter, given[key].to(parameter.dtype))
        assert backbone.llm.model.rotary_emb.inv_freq.dtype == torch.float32


def test_values_are_copied_and_the_dictionary_left_alone(shared):
    given = copy.deepcopy(shared("tiny-llama2").llm.state_dict())
    backbone = structure("tiny-llama2")
    backbone.llm.load_state_dict(given)
    with torch.no_grad():
        for parameter in backbone.llm.parameters():
            parameter.zero_()
    assert all(torch.equal(value, shared("tiny-llama2").llm.state_dict()[key]) for key, value in given.items())


def test_what_does_not_fit_is_torchs_own_error_and_nothing_runs(shared, ids):
    given = dict(shared("tiny-llama2").llm.state_dict())
    rows = structure("tiny-llama2")
    base = {**given, "model.embed_tokens.weight": given["model.embed_tokens.weight"][:960]}
    with pytest.raises(RuntimeError, match=r"load_weights[\s\S]*size mismatch for model.embed_tokens.weight"):
        rows.llm.load_state_dict(base)
    with pytest.raises(BackboneError, match=r"lacks 1 of 21 tensors.*embed_tokens"):
        rows(ids(rows))
    lacking = structure("tiny-llama2")
    lacking_norm = {key: value for key, value in given.items() if key != "model.norm.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*model\.norm\.weight"):
        lacking.llm.load_state_dict(lacking_norm)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*vision"):
        lacking.llm.load_state_dict({**given, "vision.weight": torch.zeros(1)})
    assert lacking.llm.load_state_dict(lacking_norm, strict=False).missing_keys == ["model.norm.weight"]
    lacking.llm.load_state_dict(given)
    with torch.no_grad():
        lacking(ids(lacking))


def test_a_second_dictionary_is_copied_over_the_first_and_growth_goes_on(shared, ids, tmp_path):
    """Loaded so, the backbone is one like every other: it saves, trains, grows, copies and pickles."""
    trained = shared("tiny-llama2")
    backbone = structure("tiny-llama2")
    empty = pickle.loads(pickle.dumps(backbone))
    for target in (backbone, empty, copy.deepcopy(structure("tiny-llama2"))):
        target.load_state_dict({key: torch.zeros_like(value) for key, value in trained.state_dict().items()})
        target.load_state_dict(trained.state_dict())
        with torch.no_grad():
            assert torch.equal(target(ids(trained)).logits, trained(ids(trained)).logits)
    growth = grow_vocabulary(backbone, ["<ACT>"])
    row = torch.tensor([[1, 5, *growth.ids]])
    backbone(row, labels=row).loss.backward()
    assert all(parameter.grad is not None for parameter in backbone.llm.parameters())
    backbone.save(tmp_path / "m")
    again = load_backbone(tmp_path / "m", inference_mode=True, weights=True, dtype="float32")
    assert torch.equal(again.llm.lm_head.weight, backbone.llm.lm_head.weight)

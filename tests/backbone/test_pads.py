"""The pad token of a backbone: the original's rows for Phi-2, what is loaded over them, and that it stays."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PhiForCausalLM

from vertebra.backbone.matrices import matrices
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY, tiny_checkpoint, write_tiny
from vertebra.backbone.vocabulary import ADDED_PAD, grow_vocabulary, undo_growth
from vertebra.errors import CheckpointError, VocabularyError


def originals_phi(folder) -> tuple[PhiForCausalLM, object]:
    """What OpenVLA's code makes of Phi-2, in its own words."""
    llm = PhiForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    llm.config.pad_token_id = tokenizer.pad_token_id
    llm.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    return llm.eval(), tokenizer


def test_phi2_is_the_originals():
    """832 rows stand for the real 51200, 760 tokens for 50295, and 768 rows for 50304."""
    llm, tokenizer = originals_phi(tiny_checkpoint("tiny-phi2"))
    backbone = load_backbone("tiny-phi2", dtype="float32").eval()
    assert backbone.tokenizer.pad_token == "<|pad|>"
    assert backbone.pad_token_id == tokenizer.pad_token_id == 760
    assert backbone.num_rows == backbone.llm.config.vocab_size == llm.config.vocab_size == 768
    theirs = llm.state_dict()
    ours = backbone.llm.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    ids = torch.tensor([[5, 6, 760, 7]])
    with torch.no_grad():
        assert torch.equal(backbone(ids).logits, llm(ids).logits)


def prismatic_folder(folder, prefix="llm_backbone.llm."):
    """A checkpoint that the original trained: its rows, its names, and beside a base config no tokenizer of its own."""
    llm, _ = originals_phi(tiny_checkpoint("tiny-phi2"))
    torch.nn.init.normal_(llm.get_input_embeddings().weight)
    write_tiny("tiny-phi2", folder)
    (folder / "tokenizer.json").unlink()
    tensors = {prefix + name: value.contiguous() for name, value in llm.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder, llm


def test_a_prismatic_phi_loads_by_folder_and_by_state_dict(tmp_path):
    folder, llm = prismatic_folder(tmp_path / "prismatic")
    by_folder = load_backbone("tiny-phi2", inference_mode=True, dtype="float32")
    report = by_folder.load_weights(folder)
    assert (report.rows, report.replayed, report.rows_in_file) == ("grown", 0, 768)
    by_dict = load_backbone("tiny-phi2", inference_mode=True, dtype="float32")
    by_dict.load_state_dict({f"llm.{name}": value for name, value in llm.state_dict().items()})
    base = load_backbone("tiny-phi2", inference_mode=True, dtype="float32")
    assert base.load_weights(tiny_checkpoint("tiny-phi2")).rows == "base"
    assert base.num_rows == 768
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(by_folder(ids).logits, llm(ids).logits)
        assert torch.equal(by_dict(ids).logits, llm(ids).logits)
        assert not torch.equal(base(ids).logits, llm(ids).logits)


def test_phi2_grows_saves_and_comes_back(tmp_path):
    backbone = load_backbone("tiny-phi2", dtype="float32")
    before = [matrix.parameter.detach().clone() for matrix in matrices(backbone.llm)]
    grow_vocabulary(backbone, ["<ACT>"])
    backbone.save(tmp_path / "m")
    for options in ({}, {"inference_mode": True, "weights": True}):
        again = load_backbone(tmp_path / "m", dtype="float32", **options)
        assert (again.num_rows, again.pad_token_id, len(again.growths)) == (768, 760, 2)
        undo_growth(again)
        assert all(torch.equal(m.parameter, old) for m, old in zip(matrices(again.llm), before, strict=True))
    structure = load_backbone(tmp_path / "m", inference_mode=True, dtype="float32")
    assert structure.load_weights(tiny_checkpoint("tiny-phi2")).replayed == 2
    assert torch.equal(structure.llm.lm_head.weight, backbone.llm.lm_head.weight)


def as_saved_before(folder):
    """A Phi-2 folder of the first release: `<PAD>` in a spare row, and every row of the base."""
    load_backbone("tiny-phi2", dtype="float32").save(folder)
    config, record, tokens = (json.loads((folder / name).read_text()) for name in
                              ("config.json", "vertebra.json", "tokenizer.json"))  # fmt: skip
    config["vocab_size"] = 832
    growth = record["backbone"]["growths"][0]
    growth.update(tokens=["<PAD>"], init="mean", rows_after=832)
    text = json.dumps(tokens).replace("<|pad|>", "<PAD>")
    settings = (folder / "tokenizer_config.json").read_text().replace("<|pad|>", "<PAD>")
    probes = record["backbone"]["fingerprint"]["probes"]
    record["backbone"]["fingerprint"]["probes"] = {k.replace("<|pad|>", "<PAD>"): v for k, v in probes.items()}
    (folder / "tokenizer.json").write_text(text)
    (folder / "tokenizer_config.json").write_text(settings)
    (folder / "config.json").write_text(json.dumps(config))
    from vertebra.backbone.habits import fingerprint

    record["backbone"]["fingerprint"]["hash"] = fingerprint(AutoTokenizer.from_pretrained(folder))
    (folder / "vertebra.json").write_text(json.dumps(record))
    save_file(load_file(tiny_checkpoint("tiny-phi2") / "model.safetensors"), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("mode", [{}, {"inference_mode": True, "weights": True}], ids=["train", "infer"])
def test_a_recorded_pad_stays(tmp_path, mode):
    backbone = load_backbone(as_saved_before(tmp_path / "old"), dtype="float32", **mode)
    assert (backbone.tokenizer.pad_token, backbone.pad_token_id, backbone.num_rows) == ("<PAD>", 760, 832)
    assert len(backbone.growths) == 1
    with pytest.raises(VocabularyError, match="stays"):
        undo_growth(backbone)


@pytest.mark.parametrize("name", ["tiny-qwen2.5", "tiny-opt"])
def test_rows_fewer_than_the_bases(tmp_path, name):
    """Other code's `resize_token_embeddings(len(tokenizer))` cuts the spare rows of a base."""
    backbone = load_backbone(name, inference_mode=True, dtype="float32")
    used, rows = len(backbone.tokenizer), backbone.num_rows
    assert used < rows
    cut = write_tiny(name, tmp_path / "cut")
    tensors = load_file(cut / "model.safetensors")
    tables = [key for key, value in tensors.items() if value.shape[0] == rows]
    for kept in (used, used - 1):
        few = {key: value[:kept].clone() if key in tables else value for key, value in tensors.items()}
        save_file(few, cut / "model.safetensors", {"format": "pt"})
        if kept < used:
            with pytest.raises(CheckpointError, match=f"or fewer that hold all of its {used} tokens"):
                backbone.load_weights(cut)
        else:
            assert backbone.load_weights(cut).rows_in_file == used
        assert backbone.num_rows == backbone.llm.config.vocab_size == used
    with torch.no_grad():
        assert backbone(torch.tensor([[5, 6, 7]])).logits.shape[-1] == used
    growth = grow_vocabulary(backbone, ["<ACT>"])
    assert growth.rows_before == used == growth.ids[0]


def test_an_undone_growth_never_leaves_rows_that_nobody_wrote(tmp_path):
    """Grown by a multiple, then loaded with fewer rows than the base had before."""
    backbone = load_backbone("tiny-qwen2.5", inference_mode=True, dtype="float32")
    many = [f"<t{n}>" for n in range(60)]
    grow_vocabulary(backbone, many, multiple_of=64)
    grown = write_tiny("tiny-qwen2.5", tmp_path / "grown")
    backbone.tokenizer.save_pretrained(grown)
    tensors = load_file(grown / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = torch.cat([tensors[name], tensors[name]])[: len(backbone.tokenizer)].contiguous()
    save_file(tensors, grown / "model.safetensors", {"format": "pt"})
    assert backbone.load_weights(grown).rows_in_file == len(backbone.tokenizer)
    with pytest.raises(VocabularyError, match="took over rows"):
        undo_growth(backbone)


@pytest.mark.parametrize("name", list(TINY))
def test_the_librarys_own_pad_is_no_growth_to_undo(name):
    backbone = load_backbone(name, dtype="float32")
    before = (len(backbone.tokenizer), backbone.num_rows, backbone.tokenizer.pad_token)
    grow_vocabulary(backbone, ["<A>"])
    grow_vocabulary(backbone, ["[PAD2]"], is_pad=True)  # a user's own pad is a growth like any other
    assert undo_growth(backbone).tokens == ("[PAD2]",)
    assert undo_growth(backbone).tokens == ("<A>",)
    with pytest.raises(VocabularyError, match=r"nothing to undo|is the pad token that .* was made with, and stays"):
        undo_growth(backbone)
    assert before == (len(backbone.tokenizer), backbone.num_rows, backbone.tokenizer.pad_token)
    assert ADDED_PAD in backbone.tokenizer.get_vocab() or backbone.tokenizer.pad_token != ADDED_PAD

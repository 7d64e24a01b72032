"""Growing a vocabulary: both matrices and the bias, real rows only, exact inverse, recorded and replayed."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.backbone.matrices import matrices
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import Growth, grow_vocabulary, new_row_ids, train_only_new_rows, undo_growth
from vertebra.errors import UnknownNameError, VocabularyError


def tables(backbone) -> dict[str, torch.Tensor]:
    return {matrix.name: matrix.parameter.detach().clone() for matrix in matrices(backbone.llm)}


@pytest.mark.parametrize("name", list(TINY))
def test_growth_and_its_exact_inverse(name):
    backbone = load_backbone(name, dtype="float32")
    before = tables(backbone)
    tokenizer_before = backbone.tokenizer.backend_tokenizer.to_str()
    tied = backbone.llm.get_output_embeddings().weight is backbone.llm.get_input_embeddings().weight
    embedding = backbone.llm.get_input_embeddings().weight
    growth = grow_vocabulary(backbone, ["<ACT>", "<GRIP>"], multiple_of=8)

    assert backbone.llm.get_input_embeddings().weight is embedding, (
        "an optimizer that held the parameter still holds it"
    )
    assert (backbone.llm.get_output_embeddings().weight is embedding) is tied
    assert backbone.num_rows == backbone.llm.config.vocab_size == growth.rows_after >= growth.rows_before
    assert growth.rows_after % 8 == 0
    assert tuple(backbone.tokenizer("<ACT><GRIP>", add_special_tokens=False).input_ids) == growth.ids
    for table, rows in tables(backbone).items():
        untouched = [i for i in range(growth.rows_before) if i not in growth.ids]
        assert torch.equal(rows[untouched], before[table][untouched]), table
        act, grip = rows[list(growth.ids)]
        assert not torch.equal(act, grip), f"new rows of {table} must differ"
        assert rows[list(growth.ids)].isfinite().all()

    assert undo_growth(backbone) == growth
    for table, rows in tables(backbone).items():
        assert torch.equal(rows, before[table]), table
    assert json.loads(backbone.tokenizer.backend_tokenizer.to_str()) == json.loads(tokenizer_before)


def test_llama2_has_the_historical_pad_and_rows():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    assert backbone.tokenizer.pad_token == "<PAD>"
    assert (
        backbone.pad_token_id == 960 == backbone.llm.config.pad_token_id == backbone.llm.generation_config.pad_token_id
    )
    assert backbone.num_rows == 1024  # 961 tokens, a multiple of 64
    assert backbone.growths[0].is_pad


def test_never_shrinks():
    """`resize_token_embeddings(len(tokenizer))` cuts Qwen, Phi and OPT, whose matrices are larger than their vocabulary."""
    for name in ("tiny-qwen2.5", "tiny-phi2", "tiny-opt"):
        backbone = load_backbone(name)
        rows = backbone.num_rows
        assert len(backbone.tokenizer) < rows
        grow_vocabulary(backbone, ["<ACT>"])
        assert backbone.num_rows == rows


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-phi2", "tiny-gpt2"])
def test_the_mean_is_taken_over_rows_that_tokens_use(name):
    """The common recipe averages `weight[:-num_new]` and writes `weight[-num_new:]`: in a padded matrix these are
    padding rows, so that the mean is off and the new token's own row is never written."""
    backbone = load_backbone(name, dtype="float32")
    used = len(backbone.tokenizer)
    before = tables(backbone)
    with torch.no_grad():  # padding rows that would spoil a mean over all rows
        for matrix in matrices(backbone.llm):
            matrix.parameter[used:] = 100.0
    growth = grow_vocabulary(backbone, ["<ACT>"], init="mean", multiple_of=64)
    for table, rows in tables(backbone).items():
        expected = before[table][:used].mean(0)
        torch.testing.assert_close(rows[growth.ids[0]], expected)
        recipe = rows[: backbone.num_rows - 1].mean(0)
        assert not torch.allclose(recipe, expected), "the recipe must be wrong here, or this test shows nothing"


def test_rows_start_like_given_tokens():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    models = backbone.tokenizer("move", add_special_tokens=False).input_ids
    rows = backbone.llm.get_input_embeddings().weight.detach().clone()
    growth = grow_vocabulary(backbone, ["<ACT>"], init={"<ACT>": ["move"]})
    new = backbone.llm.get_input_embeddings().weight[growth.ids[0]]
    expected = rows[models].mean(0)
    assert torch.nn.functional.cosine_similarity(new, expected, dim=0) > 0.9
    with pytest.raises(UnknownNameError, match="<GRIP>"):
        grow_vocabulary(backbone, ["<GRIP>"], init={"<GRIPP>": ["close"]})


def test_normal_rows_have_the_models_own_spread():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    growth = grow_vocabulary(backbone, [f"<a{i}>" for i in range(200)], init="normal")
    new = backbone.llm.get_input_embeddings().weight[list(growth.ids)]
    assert new.std().item() == pytest.approx(backbone.llm.config.initializer_range, rel=0.1)


@settings(max_examples=15, deadline=None)
@given(
    batches=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    multiple=st.sampled_from([1, 8, 64]),
    name=st.sampled_from(["tiny-llama2", "tiny-qwen2", "tiny-phi2", "tiny-gemma2"]),
)
def test_several_growths_unwind_in_order(batches, multiple, name):
    backbone = load_backbone(name, dtype="float32")
    trail = []
    for number, count in enumerate(batches):
        trail.append((tables(backbone), len(backbone.tokenizer)))
        grow_vocabulary(backbone, [f"<t{number}.{i}>" for i in range(count)], multiple_of=multiple, seed=number)
    for rows, size in reversed(trail):
        undo_growth(backbone)
        assert len(backbone.tokenizer) == size
        assert all(torch.equal(now, rows[table]) for table, now in tables(backbone).items())


def test_undo_survives_a_save(tmp_path):
    backbone = load_backbone("tiny-qwen2.5", dtype="float32")
    before = tables(backbone)
    grow_vocabulary(backbone, ["<ACT>"])
    backbone.save(tmp_path / "m")
    for options in ({}, {"inference_mode": True, "weights": True}):
        reloaded = load_backbone(tmp_path / "m", dtype="float32", **options)
        undo_growth(reloaded)
        assert all(torch.equal(now, before[table]) for table, now in tables(reloaded).items())
        assert "<ACT>" not in reloaded.tokenizer.get_vocab()


def test_rows_that_nobody_kept_cannot_return(tmp_path):
    """Grown weights of a plain folder do not tell what stood in the spare rows: saying so beats a wrong row."""
    grown = load_backbone("tiny-opt", dtype="float32")
    grow_vocabulary(grown, ["<ACT>"])
    grown.llm.save_pretrained(tmp_path)
    grown.tokenizer.save_pretrained(tmp_path)
    backbone = load_backbone("tiny-opt", dtype="float32", inference_mode=True)
    grow_vocabulary(backbone, ["<ACT>"])
    backbone.load_weights(tmp_path)
    with pytest.raises(VocabularyError, match="took over rows"):
        undo_growth(backbone)
    assert len(backbone.growths) == 1
    assert "<ACT>" in backbone.tokenizer.get_vocab()
    unloaded = load_backbone("tiny-opt", inference_mode=True)
    grow_vocabulary(unloaded, ["<ACT>"])
    undo_growth(unloaded)  # without weights nothing is lost
    assert not unloaded.growths


def test_only_new_rows_train():
    backbone = load_backbone("tiny-llama2", dtype="float32").train()
    backbone.requires_grad_(False)
    growth = grow_vocabulary(backbone, ["<ACT>"], only_new_trainable=True)
    assert new_row_ids(backbone) == list(growth.ids)
    ids = torch.tensor([[5, growth.ids[0], 7, 9]])
    backbone(ids, labels=ids).loss.backward()
    for matrix in matrices(backbone.llm):
        rows = matrix.parameter.grad.abs().sum(-1).nonzero().flatten().tolist()
        assert rows == list(growth.ids), matrix.name


def test_a_second_growth_trains_too():
    backbone = load_backbone("tiny-llama2", dtype="float32")
    first = grow_vocabulary(backbone, ["<A>"], only_new_trainable=True)
    second = grow_vocabulary(backbone, ["<B>"], only_new_trainable=True)
    row = torch.tensor([[1, *first.ids, *second.ids, 2]])
    backbone(row, labels=row).loss.backward()
    for matrix in matrices(backbone.llm):
        assert matrix.parameter.grad.abs().sum(-1).nonzero().flatten().tolist() == [*first.ids, *second.ids]


def test_lifting_the_restriction():
    backbone = load_backbone("tiny-llama2", dtype="float32").train()
    with pytest.raises(VocabularyError, match="no row is new"):
        train_only_new_rows(backbone)
    grow_vocabulary(backbone, ["<ACT>"])
    train_only_new_rows(backbone)()
    ids = torch.tensor([[5, 6, 7, 9]])
    backbone(ids, labels=ids).loss.backward()
    assert backbone.llm.lm_head.weight.grad[5].abs().sum() > 0


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["<ACT>", "<ACT>"], "twice"),
        (["</s>"], "exists already with id 2"),
        ([" "], "blank"),
        ([], "at least one"),
        ("<ACT>", "letter by letter"),
    ],
)
def test_tokens_that_cannot_be_added(tokens, text):
    backbone = load_backbone("tiny-llama2")
    size, rows = len(backbone.tokenizer), backbone.num_rows
    with pytest.raises(VocabularyError, match=text):
        grow_vocabulary(backbone, tokens)
    assert (len(backbone.tokenizer), backbone.num_rows) == (size, rows)


def test_other_bad_arguments():
    plain = load_backbone("tiny-llama2", dtype="float32")
    for tokens in (3, (3,), [b"<A>"], {"<A>": 1}):
        with pytest.raises(VocabularyError, match="expected a list of strings"):
            grow_vocabulary(plain, tokens)
    with pytest.raises(VocabularyError, match=r"multiple_of is 2\.5"):
        grow_vocabulary(plain, ["<A>"], multiple_of=2.5)
    with pytest.raises(UnknownNameError, match="not among the tokens to add"):
        grow_vocabulary(plain, ["<A>"], init={"<A>": ["go"], "<C>": ["stop"]})
    with pytest.raises(VocabularyError, match="has nothing for '<B>'"):
        grow_vocabulary(plain, ["<A>", "<B>"], init={"<A>": ["go"]})
    backbone = load_backbone("tiny-llama2")
    with pytest.raises(UnknownNameError, match="mean"):
        grow_vocabulary(backbone, ["<ACT>"], init="meen")
    with pytest.raises(VocabularyError, match="multiple_of"):
        grow_vocabulary(backbone, ["<ACT>"], multiple_of=0)
    with pytest.raises(VocabularyError, match="no growth left to undo: `<PAD>`"):
        undo_growth(backbone)
    with pytest.raises(VocabularyError, match="nothing to undo"):
        undo_growth(load_backbone("tiny-opt"))


def test_a_record_survives_json():
    backbone = load_backbone("tiny-llama2")
    growth = grow_vocabulary(backbone, ["<ACT>"], init={"<ACT>": ["move"]}, special=False)
    assert Growth.from_json(json.loads(json.dumps(growth.to_json()))) == growth


def test_the_pad_row_and_the_end_row_both_learn():
    """`pad == eos` in a config would freeze the row that ends every answer."""
    backbone = load_backbone("tiny-smollm2", dtype="float32").train()
    end = backbone.tokenizer.eos_token_id
    ids = torch.tensor([[5, 6, end]])
    backbone(ids, labels=ids).loss.backward()
    assert backbone.llm.get_input_embeddings().weight.grad[end].abs().sum() > 0

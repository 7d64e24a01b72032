"""Sentence pairs: the library's own ids, types and cutting; labels by name, in range, or told."""

from __future__ import annotations

import datasets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.data.encode.classifier import load_classifier
from vertebra.data.encode.pairs import Classified, PairEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import Shuffled
from vertebra.data.read.labels import Labels
from vertebra.data.read.open import open_source
from vertebra.errors import ConfigError, DataError, VocabularyError

from .tokenizers import tokenizer_of

ROWS = [
    {"sentence1": "He said so.", "sentence2": "So he said, and went on.", "label": 1},
    {"sentence1": "It is a dog.", "sentence2": "", "label": 0},
    {"sentence1": "Rain fell all night long on the whole of the town.", "sentence2": "It was dry.", "label": 0},
]
YES_NO = Labels(["no", "yes"])


def test_ids_and_types_are_the_librarys(bert):
    table = prepare(ROWS, PairEncoder(bert, YES_NO), cache=False)
    for index, row in enumerate(ROWS):
        expected = bert(row["sentence1"], row["sentence2"])
        sequence = table.sequence(index)
        assert sequence.ids.tolist() == expected.input_ids
        assert sequence.type.tolist() == expected.token_type_ids
        assert sequence.supervised == 0
        assert table.extra(index)["label"] == row["label"]


@settings(max_examples=40)
@given(first=st.integers(0, 12), second=st.integers(0, 12), limit=st.integers(5, 20))
def test_long_pairs_are_cut_as_longest_first_cuts(first, second, limit):
    bert = tokenizer_of("tiny-bert")
    row = {"sentence1": "the " * first, "sentence2": "and " * second, "label": 0}
    table = prepare([row], PairEncoder(bert, YES_NO, max_length=limit), cache=False)
    expected = bert(row["sentence1"], row["sentence2"], truncation="longest_first", max_length=limit).input_ids
    assert len(table.sequence(0)) == len(expected)
    assert table.sequence(0).ids.tolist() == expected


def test_single_sentences(bert):
    rows = [{"sentence": "Good film.", "label": "yes"}]
    sequence = prepare(rows, PairEncoder(bert, YES_NO), cache=False).sequence(0)
    assert sequence.ids.tolist() == bert("Good film.").input_ids
    assert sequence.type.tolist() == bert("Good film.").token_type_ids


def test_a_batch_trains_a_classifier(bert):
    table = prepare(ROWS, PairEncoder(bert, YES_NO), cache=False)
    (batch,) = Loader(table, Shuffled(3), Collator(bert.pad_token_id), pin_memory=False)
    model = AutoModelForSequenceClassification.from_config(
        AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint("tiny-bert"), num_labels=2).config
    )
    out = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch["type"].long(),
        labels=batch["labels"],
    )
    assert tuple(out.logits.shape) == (3, 2)
    assert sorted(batch["labels"].tolist()) == [0, 0, 1]
    out.loss.backward()


def test_labels_are_read_off_the_data(jsonl):
    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["not_equivalent", "equivalent"]),
        }
    )
    assert Labels.of(open_source(datasets.Dataset.from_list(ROWS, features=features))).names == [
        "not_equivalent",
        "equivalent",
    ]
    assert Labels.of(open_source(ROWS)).names == ["0", "1"]
    named = [{**row, "label": "yes" if row["label"] else "no"} for row in ROWS]
    assert Labels.of(open_source(named)).names == ["no", "yes"]
    scores = [{**row, "label": score} for row, score in zip(ROWS, (0.5, 4.2, 3.0), strict=True)]
    assert Labels.of(open_source(scores)).names is None
    assert len(Labels.of(open_source(scores))) == 1
    path = jsonl([])
    path.write_text("")
    csv = path.with_suffix(".csv")
    csv.write_text("sentence1,sentence2,label\na,b,1\nc,d,0\n")
    assert Labels.of(open_source(csv)).names == ["0", "1"]


def test_labels_that_are_none():
    assert YES_NO.number("yes") == YES_NO.number(1) == YES_NO.number("1") == 1
    assert "Did you mean `yes`" in YES_NO.number("yess")
    assert "−1 marks rows without one" in YES_NO.number(-1)
    assert "expected 0 to 1" in YES_NO.number(2)
    assert "no label" in YES_NO.number(None)
    assert Labels(None).number("2.5") == 2.5
    assert "is no number" in Labels(None).number("x")


COUNTS = [(("0", 20), ("1", 19)), (("no", 20), ("yes", 19))]


@pytest.mark.parametrize("slip", ["2", "maybe", "", " ", None, "-1", "0.5", "nan"])
@pytest.mark.parametrize("counts", COUNTS)
def test_a_slip_among_many_labels_is_named(counts, slip):
    """Whatever one row of forty has for a label: it is a fault of its row, or an outlier among the classes."""
    rows = [{**ROWS[0], "label": label} for label, count in counts for _ in range(count)]
    labels = Labels.of(open_source([*rows, {**ROWS[0], "label": slip}]))
    made = labels.number(slip)
    if isinstance(made, int):
        assert labels.outliers(labels.counts) == [slip]
    else:
        assert any(part in str(made) for part in ("no label", "label out of range", "unknown label"))
        assert labels.outliers(labels.counts) == []
    assert [labels.names[labels.number(label)] for label, _ in counts] == [label for label, _ in counts]
    declared = Labels.of(open_source(rows), declared=[label for label, _ in counts])
    assert declared.outliers({counts[0][0]: 1000, counts[1][0]: 1}) == [], "who declares classes knows them"


def test_numbers_mean_classes_only_where_names_are_known():
    words = Labels.of(open_source([{**ROWS[0], "label": label} for label in ["no", "yes", "no", "yes", "1"]]))
    assert words.names == ["no", "yes"]
    assert "unknown label: `1`" in words.number("1")
    assert Labels.of(open_source([{**ROWS[0], "label": label} for label in (100, 70000, 100)])).number(70000) == 1
    with pytest.raises(ConfigError, match="named twice"):
        Labels(["a", "a"])


def test_mrpc_as_it_is_published(tmp_path, bert):
    """Its own column names; quotes in it are marks of the text, and open ones swallow no line."""
    path = tmp_path / "msr_paraphrase_train.tsv"
    rows = [
        (1, '"We will see," he said.', "He said they would see."),
        (0, "It is.", '"Was it?'),
        (1, 'He said "yes" and left.', '"Yes" is what he said "then".'),
    ]
    lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    lines += [f"{label}\t{n}\t{n + 1}\t{one}\t{two}" for n, (label, one, two) in enumerate(rows)]
    path.write_text("\r\n".join(lines) + "\r\n")
    table = prepare(path, PairEncoder(bert, Labels.of(open_source(path))), cache=False)
    assert [table.extra(index)["label"] for index in range(3)] == [1, 0, 1]
    for index, (_, one, two) in enumerate(rows):
        assert table.sequence(index).ids.tolist() == bert(one, two).input_ids
    quoted = tmp_path / "quoted.tsv"
    quoted.write_text('sentence1\tsentence2\tlabel\n"a ""b"""\t"c\td\ne"\t1\nf\tg\t0\n')
    assert [row.fields["sentence2"] for row in open_source(quoted).rows()] == ["c\td\ne", "g"]


def test_a_classifier_is_trained_on_its_first_position(bert):
    """The loss of a batch is the plain cross entropy of its classes, and a row that only fills up counts nothing."""
    table = prepare(ROWS, PairEncoder(bert, YES_NO), cache=False)
    samples = Classified(table)
    (batch,) = Loader(samples, Shuffled(3), Collator(bert.pad_token_id), pin_memory=False, shift=False)
    model = load_classifier("tiny-bert", YES_NO).eval()
    logits = model.encoder(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch["type"].long()
    ).logits
    plain = torch.nn.functional.cross_entropy(logits, batch["labels"])
    assert torch.allclose(model(**batch)["loss"], plain)
    assert int((batch.weights > 0).sum()) == 3
    batch["weights"][0] = 0
    rest = torch.nn.functional.cross_entropy(logits[1:], batch["labels"][1:])
    assert torch.allclose(model(**batch)["loss"], rest)


def test_a_classifier_is_saved_with_its_classes(tmp_path, bert):
    model = load_classifier("tiny-bert", YES_NO).eval()
    model.save_pretrained(tmp_path / "model")
    again = load_classifier(tmp_path / "model").eval()
    pairs = [("He said so.", "So he said."), ("A dog.", None)]
    assert again.classify(pairs) == model.classify(pairs)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert plain.config.id2label == {0: "no", 1: "yes"}
    with torch.no_grad():
        best = plain(**bert(*pairs[0], return_tensors="pt")).logits.softmax(-1).max(-1)
    assert model.classify(pairs)[0] == (plain.config.id2label[int(best.indices)], pytest.approx(float(best.values)))
    with pytest.raises(ConfigError, match="a regression"):
        load_classifier("tiny-bert", Labels(None))
    with pytest.raises(DataError, match="no pairs were given"):
        model.classify([])


def test_bad_labels_are_faults(bert, jsonl):
    path = jsonl([*ROWS, {**ROWS[0], "label": 7}, {"sentence1": "a", "sentence2": "b"}])
    with pytest.raises(DataError) as caught:
        prepare(path, PairEncoder(bert, YES_NO), cache=False)
    assert f"{path}:4: label out of range: 7" in str(caught.value)
    assert f"{path}:5: no label" in str(caught.value)


def test_it_is_for_encoders(gpt2, bert):
    with pytest.raises(VocabularyError, match="as_conversation"):
        PairEncoder(gpt2, YES_NO)
    with pytest.raises(DataError, match="no room for 3 special tokens"):
        prepare(ROWS, PairEncoder(bert, YES_NO, max_length=2), cache=False)


@pytest.mark.parametrize("label", [10**12, 10**400, 1e300, 100_000])
def test_a_label_beyond_all_classes_makes_no_head_of_that_size(label):
    """Labels far apart are names, and one that no computer counts with is a fault of its row."""
    rows = [{"sentence1": "a", "sentence2": "b", "label": 0}, {"sentence1": "a", "sentence2": "b", "label": label}]
    labels = Labels.of(open_source(rows))
    assert len(labels) <= 2
    assert isinstance(labels.number(label), str) == (label == 10**400)

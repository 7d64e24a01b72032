"""Each metric against its public package: cases drawn at random and scored by anls-star 1.0.1, anls 0.0.2, seqeval 1.2.2,
table-recognition-metric 0.0.6 (`peers.json`), and by the packages themselves where they are installed; what has no
package, by hand."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.page.made import page
from vertebra.errors import ConfigError, DataError
from vertebra.page import (
    Box,
    anls,
    anls_star,
    box_hits,
    cell_f1,
    donut_accuracy,
    donut_f1,
    entity_f1,
    exact,
    line_f1,
    lines_with,
    relaxed,
    substring,
    table_cells,
    teds,
    word_f1,
)
from vertebra.page.metrics.answers import mean
from vertebra.page.metrics.distance import Node, levenshtein, tree_distance
from vertebra.page.metrics.structures import best_pairs

PEERS = json.loads((Path(__file__).parent / "peers.json").read_text())


def test_anls_star_as_its_package():
    assert [anls_star(gold, answer) for gold, answer, _ in PEERS["anls_star"]] == pytest.approx(
        [score for *_, score in PEERS["anls_star"]]
    )
    package = pytest.importorskip("anls_star", reason="anls-star is not installed; its stored scores were compared")
    draw = random.Random(5)

    def some(depth: int = 0):
        kind = draw.randrange(5 if depth < 2 else 3)
        if kind == 3:
            return [some(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 4:
            return {draw.choice("abc"): some(depth + 1) for _ in range(draw.randrange(3))}
        return draw.choice(["tea", "teas", "9.50", "9.5", "", None])

    for _ in range(150):
        # its top is a dict: a list beside a text would mean a choice there
        gold, answer = {"x": some()}, {"x": some()}
        assert anls_star(gold, answer) == pytest.approx(package.anls_score(gold, answer)), (gold, answer)


def test_teds_as_its_package():
    for gold, answer, full, structure in PEERS["teds"]:
        assert teds(gold, answer) == pytest.approx(full, abs=1e-9)
        assert teds(gold, answer, structure=True) == pytest.approx(structure, abs=1e-9)
    package = pytest.importorskip("table_recognition_metric", reason="its stored scores were compared")
    draw = random.Random(9)

    def table() -> str:
        def row() -> str:
            return "".join(
                f"<td{draw.choice(['', '', ' colspan=2'])}>{draw.choice(['', 'tea', '<b>9</b>.5', '9.5'])}</td>"
                for _ in range(draw.randrange(4))
            )

        return (
            f"<html><body><table>{''.join(f'<tr>{row()}</tr>' for _ in range(draw.randrange(4)))}</table></body></html>"
        )

    for _ in range(40):
        gold, answer = table(), table()
        assert teds(gold, answer) == pytest.approx(package.TEDS()(answer, gold)), (gold, answer)


def test_cells_of_a_table():
    text = "<table><tr><td rowspan=2>a<td>b <b>c</b><tr><td colspan='no'>d</table><table><tr><td>other"
    assert table_cells(text) == [(0, 0, "a"), (0, 1, "b c"), (1, 1, "d")]
    assert table_cells("<p>none</p>") == []
    assert teds("<p>none</p>", text) == 0
    assert teds(text, text) == 1
    assert cell_f1(table_cells(text), table_cells(text.replace("d</table>", "e</table>"))) == pytest.approx(2 / 3)


def test_anls_with_both_tie_rules():
    for answer, golds, drop, keep in PEERS["anls"]:
        assert anls(answer, golds, ties="drop") == pytest.approx(drop)
        assert anls(answer, golds) == pytest.approx(keep)
    assert anls("ac", ["ab"]) == 0.5
    assert anls("ac", ["ab"], ties="drop") == 0
    with pytest.raises(ConfigError, match="keep"):
        anls("a", ["a"], ties="best")
    with pytest.raises(DataError, match="list of at least one"):
        anls("a", "a")
    assert mean(anls, ["a", "b"], [["a"], ["x"]]) == 0.5
    with pytest.raises(DataError, match="1 answers for 2"):
        mean(anls, ["a"], [["a"], ["b"]])


def test_entity_f1_as_seqeval():
    for gold, answer, lenient, strict in PEERS["tags"]:
        assert entity_f1(gold, answer) == pytest.approx(lenient)
        assert entity_f1(gold, answer, mode="strict") == pytest.approx(strict)
    assert entity_f1([["O", "B-a", "I-a"]], [["O", "I-a", "I-a"]]) == 1
    with pytest.raises(DataError, match="sentence 0 has 1 gold tags and 2"):
        entity_f1([["O"]], [["O", "O"]])
    with pytest.raises(ConfigError, match="strict"):
        entity_f1([["O"]], [["O"]], mode="hard")


@pytest.mark.parametrize(
    ("metric", "answer", "gold", "score"),
    [
        (exact, " 9.50 ", "9.50", 1), (exact, "9.5", "9.50", 0),
        (substring, "the whole page: TOTAL 9.50 and more", "total 9.50", 1), (substring, "9.5", "9.50", 0),
        (relaxed, "104", "100", 1), (relaxed, "106", "100", 0), (relaxed, "5%", "0.05", 1), (relaxed, "0.0", "0", 0),
        (relaxed, "Yes", "yes", 1),
    ],
)  # fmt: skip
def test_answers_by_hand(metric, answer, gold, score):
    assert metric(answer, [gold]) == score


@given(one=st.text("abc", max_size=7), other=st.text("abc", max_size=7))
def test_distance_against_the_definition(one, other):
    def plain(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(plain(a[1:], b) + 1, plain(a, b[1:]) + 1, plain(a[1:], b[1:]) + (a[0] != b[0]))

    if len(one) + len(other) < 10:
        assert levenshtein(one, other) == plain(one, other)
    assert levenshtein(one, other) == levenshtein(other, one)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 4), columns=st.integers(1, 5))
def test_best_pairs_against_all_pairings(seed, rows, columns):
    draw = random.Random(seed)
    worth = [[draw.random() for _ in range(columns)] for _ in range(rows)]
    few, many = (range(rows), range(columns)) if rows <= columns else (range(columns), range(rows))
    value = (lambda i, j: worth[i][j]) if rows <= columns else (lambda i, j: worth[j][i])
    best = max(
        sum(value(i, j) for i, j in zip(few, order, strict=True)) for order in itertools.permutations(many, len(few))
    )
    assert sum(worth[i][j] for i, j in best_pairs(worth)) == pytest.approx(best)
    assert best_pairs([]) == []


def forest_distance(ours: tuple[Node, ...], theirs: tuple[Node, ...]) -> float:
    """By the definition, on the last trees of both."""
    if not ours or not theirs:
        return sum(map(len, ours)) + sum(map(len, theirs))
    a, b = ours[-1], theirs[-1]
    return min(
        forest_distance((*ours[:-1], *a.children), theirs) + 1,
        forest_distance(ours, (*theirs[:-1], *b.children)) + 1,
        forest_distance(ours[:-1], theirs[:-1])
        + forest_distance(tuple(a.children), tuple(b.children))
        + (a.label != b.label),
    )


@pytest.mark.parametrize("seed", range(12))
def test_tree_distance_against_the_definition(seed):
    draw = random.Random(seed)

    def tree(depth: int = 0) -> Node:
        return Node(draw.choice("ab"), [tree(depth + 1) for _ in range(draw.randrange(3) if depth < 2 else 0)])

    one, other = tree(), tree()
    assert tree_distance(one, other, lambda a, b: float(a != b)) == forest_distance((one,), (other,))


def test_donut_as_its_package():
    """Scores of `JSONParseEvaluator` of donut-python 1.0.9, which asks for a transformers of its time and is therefore no
    extra of ours; and of LayTextLLM's own rule for a substring."""
    kept = 0
    for gold, answer, f1, accuracy in PEERS["donut"]:
        assert donut_f1([gold], [answer]) == pytest.approx(f1)
        assert donut_accuracy(gold, answer) == pytest.approx(accuracy)
        kept += 0 < accuracy < 1
    assert kept > 40
    for answer, golds, score in PEERS["substring"]:
        assert substring(answer, golds) == score


def test_donut_by_hand():
    gold = {"menu": [{"nm": "tea", "price": "2"}, {"nm": "milk", "price": "1"}], "total": "3"}
    assert donut_f1([gold], [gold]) == 1
    assert donut_f1([gold], [{**gold, "total": "4"}]) == pytest.approx(0.8)
    assert donut_accuracy(gold, gold) == 1
    assert donut_accuracy({"a": "b"}, {}) == 0
    # 6 nodes for `menu`, its two parts and their keys, 1 for `total`, 9 letters; one letter is another
    assert donut_accuracy(gold, {**gold, "total": "4"}) == pytest.approx(1 - 1 / 18)
    assert donut_accuracy({}, {}) == donut_f1([{}], [{}]) == 1
    assert donut_accuracy({}, {"a": "b"}) == 0


def test_tables_and_evidence_by_hand():
    assert cell_f1([(0, 0, "a"), (0, 1, "b")], [(0, 0, " A"), (1, 1, "b")]) == 0.5
    assert cell_f1([], []) == 1
    assert box_hits([Box(0, 0, 10, 10), Box(20, 0, 30, 10)], [Box(0, 0, 10, 6)]) == 0.5
    assert box_hits([], [Box(0, 0, 1, 1)]) == 1
    assert line_f1([1, 2], [2, 3]) == 0.5
    assert line_f1([], []) == 1
    made = page(1)
    assert 3 in lines_with(made, made.lines[3].text.upper())
    assert lines_with(made, " ") == []
    assert word_f1("a b b", "A b c") == pytest.approx(2 / 3)

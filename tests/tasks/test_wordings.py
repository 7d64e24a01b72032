"""Other words for a set's sentences: each sample is asked in one of them, evaluation in its own; paraphrases stay unseen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tasks.robots import SENTENCES, episodes, small_set
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.simulate.metaworld.instructions import TASKS
from vertebra.tasks.wordings import read_wordings
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.recipes import read_recipe

PUSH, PULL = SENTENCES
WORDS = {PUSH: ["shove the cube far away from the hand", "move it"]}
OURS = Path("recipes/data/wordings.yaml")


def write(path: Path, words: Any) -> str:
    path.write_text(words if isinstance(words, str) else yaml.safe_dump(words))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("sets") / "cubes")


def data_of(folder: Path, wordings: str | None, **data: Any) -> tuple[Any, Any]:
    config = episodes(folder, options={"wordings": wordings}, data={"cache": False, **data})
    model = build_model(config)
    return model, build_data(config, model)


def asked(model: Any, samples: Any, index: int, epoch: int) -> str:
    return model.tokenizer.decode(samples.vectors(index, epoch)["ids"])


def test_each_sample_is_asked_in_one_of_the_words(folder: Path, tmp_path: Path):
    model, data = data_of(folder, write(tmp_path / "words.yaml", WORDS))
    _, plain = data_of(folder, None)
    heard: dict[str, Counter[str]] = {PUSH: Counter(), PULL: Counter()}
    for index in range(len(data.train)):
        own = data.train.shown[data.train._at[index][0]].sentence
        for epoch in range(60):
            text = asked(model, data.train, index, epoch)
            (words,) = [one for one in (own, *WORDS.get(own, ())) if one.lower() in text.lower()]
            heard[own][words] += 1
            assert data.train.vectors(index, epoch)["ids"].size <= data.train.lengths[index]
            if words == own:  # the plain twin
                assert text == asked(model, plain.train, index, epoch)
    assert set(heard[PULL]) == {PULL}, "no other words are known for it"
    counts = heard[PUSH]
    assert set(counts) == {PUSH, *WORDS[PUSH]}
    others = [counts[one] for one in WORDS[PUSH]]
    assert max(others) < 1.3 * min(others), "each of the others as often"
    assert 0.9 < counts[PUSH] / sum(others) < 1.1, "its own words half the time"
    assert data.train.fingerprint() != plain.train.fingerprint()
    assert data.held_out.fingerprint() == plain.held_out.fingerprint()


def test_workers_ask_in_the_same_words(folder: Path, tmp_path: Path):
    words = write(tmp_path / "words.yaml", WORDS)
    _, data = data_of(folder, words)
    _, beside = data_of(folder, words, workers=2)
    one, two = data.loader(4), beside.loader(4)
    epochs = [[batch["input_ids"].tolist() for batch in one] for _ in range(2)]
    assert epochs == [[batch["input_ids"].tolist() for batch in two] for _ in range(2)]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"push the cub": ["shove it"]}, "Did you mean `push the cube`.*data.options.wordings=null"),
        ({PUSH: "shove it"}, "has 'shove it'; expected a list of sentences"),
        ({PUSH: []}, "expected a list"),
        ({PUSH: ["shove it", " "]}, "has ' '; expected a sentence"),
        (f"{PUSH}: [shove it, off]", "has False; expected a sentence, in quotes"),
        ({PUSH: ["shove it", "shove it"]}, "has `shove it` twice"),
        ({PUSH: ["push the cube"]}, "twice"),
        ({PUSH: ["move it"], PULL: ["move it"]}, "`move it` is said to mean"),
        ("", "has no sentence; expected lines such as"),
        ("- shove it", "expected a mapping"),
    ],
)
def test_words_that_cannot_be_used(words: Any, message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        read_wordings(write(tmp_path / "words.yaml", words), SENTENCES)


def test_a_file_that_is_not_there(folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml` cannot be read: No such file"):
        data_of(folder, str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UnknownNameError, match="sentence of the set `open the drawer`"):
        data_of(folder, str(OURS))


def test_a_file_is_relative_to_who_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = tmp_path / "there" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        "name: mine\nmodel: {backbone: tiny-llama2, scratch: true}\nsteps: 1\n"
        "data: {kind: episodes, options: {wordings: words.yaml}}\n"
    )
    beside, here = (Path(write(one / "words.yaml", WORDS)) for one in (recipe.parent, tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read_recipe(recipe).data.options["wordings"] == str(beside)
    assert read_recipe(recipe, ["data.options.wordings=words.yaml"]).data.options["wordings"] == str(here)


def test_our_words_are_of_tasks_and_hold_no_paraphrase_that_is_asked_for():
    rows = {row.instruction: row for row in TASKS.values()}
    words = read_wordings(OURS, rows)
    held_out = {one for row in TASKS.values() for one in row.paraphrases}
    assert len(words) == 5
    for sentence, others in words.items():
        assert len(others) >= 8, sentence
        assert not held_out & {one.lower() for one in (sentence, *others)}, sentence

"""What a model from scratch is taught pages by: few pairs first, boxes on the very position that answers, no format between."""

from __future__ import annotations

import numpy as np
import pytest

from vertebra import config as configs
from vertebra.backbone.registry import load_backbone
from vertebra.data.model_facts import ModelFacts
from vertebra.errors import ConfigError
from vertebra.page import Line, Page
from vertebra.tasks.chain import read_data
from vertebra.tasks.config import DataConfig
from vertebra.tasks.page_questions import keyed
from vertebra.tasks.task import Job
from vertebra.training.building import build_model
from vertebra.training.recipes import read_recipe


def read(**options):
    backbone = load_backbone("tiny-llama2", inference_mode=True, builder="bare")
    facts = ModelFacts.of_backbone("tiny-llama2", backbone, {})
    given = {"kind": "pages", "block": 500, "count": 12, "held_out": 0.5, "options": options}
    return read_data(Job(data=configs.build(DataConfig, given), model=facts, seed=0))


def test_a_box_that_is_asked_about_stands_right_before_its_answer():
    """So that what predicts the answer has the box, and need not look for it: nothing between, where the format has nothing."""
    learn = {"text-by-box": 1, "value-by-box": 1}
    samples = read(drawn="form", manner="added", turns=6, reserve=240, learn=learn).train
    for number in range(4):
        row = samples.row(number, 0)
        asked = np.flatnonzero((row.sequence.slot[:, 0] >= 0) & (row.places.origin[:, 0] < 0))
        assert len(asked) == 6
        assert (row.sequence.weight[asked] == 0).all()
        assert (row.sequence.weight[asked + 1] > 0).all()


def test_few_pairs_are_trained_on_and_six_are_held_out():
    data = read(drawn="mixed", manner="added", head=False, pairs=1, slant=2, reserve=240)
    counts = [len(view.known["fields"]) for view in data.train.views]
    assert min(counts) < 3 < max(counts)
    held_out = getattr(data.held_out, "samples", data.held_out)
    assert {len(view.known["fields"]) for view in held_out.views} == {6}
    assert {len(view.known["value-by-box"]) for view in held_out.views} == {6}
    assert all(question.sort == "fields" for _, question in held_out.alone()), "helpers are not evaluated"
    tops = [line.box[1] for line in held_out.views[0].lines]
    assert len(set(tops)) == len(tops), "slanted: no two lines begin at one height"


def test_linked_lines_are_names_and_values():
    page = Page.of(
        [Line("Name:", (0, 0, 9, 9), label="question"), Line("Ada", (10, 0, 19, 9)), Line("Lee", (20, 0, 29, 9))],
        size=(30, 10),
        facts={"links": [[0, 1], [0, 2]]},
    )
    assert list(keyed(page)) == [(0, "Ada Lee")]


def test_a_recipe_chooses_how_prompts_are_written():
    recipe = read_recipe("receipts-drawn", ["data.count=8"])
    model = build_model(recipe)
    assert model.backbone.prompt_builder_fn.name == "bare"
    assert model.backbone.llm.get_output_embeddings().weight is model.backbone.llm.get_input_embeddings().weight
    with pytest.raises(ConfigError, match=r"model\.builder"):
        read_recipe("receipts-drawn", ["model.scratch=false", "model.start=somewhere"])
    with pytest.raises(ConfigError, match="bare"):
        build_model(read_recipe("receipts-drawn", ["model.builder=bear"]))


def test_a_field_is_named_as_it_is_printed():
    data = read(drawn="mixed", manner="added", head=False, printed=True, reserve=240)
    for samples in (data.train, getattr(data.held_out, "samples", data.held_out)):
        for view in samples.views:
            printed = {line.text for line in view.lines}
            assert all(question.name in printed for question in view.known["fields"])
            assert len(view.known["value-by-box"]) == len(view.known["fields"]) == 6


def test_names_are_joined_to_values_in_training_alone():
    data = read(drawn="form", manner="added", head=False, joined=1.0, slant=2, reserve=240, printed=True)
    held_out = getattr(data.held_out, "samples", data.held_out)
    assert {len(view.lines) for view in held_out.views} == {12}
    counts = {len(view.lines) for view in data.train.views}
    assert counts == {6, 12}, "values below their names are never joined"
    view = next(view for view in data.train.views if len(view.lines) == 6)
    for line in view.lines:
        value = next(q.answer for q in view.known["fields"] if line.text == f"{q.name} {q.answer}")
        assert line.words[-1] == value
        assert line.word_boxes[0][2] <= line.word_boxes[-1][0], "each word keeps its place"
    assert len(view.known["value-by-box"]) == 6
    page = view.document.pages[0]
    assert all(page.facts["fields"][name] in page.lines[at].text for name, (at,) in page.facts["evidence"].items())

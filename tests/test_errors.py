"""The tree of errors: each is ours and a built-in too, and messages name the nearest valid spelling."""

from __future__ import annotations

import difflib
import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra import errors
from vertebra.errors import MissingPartError, UnknownNameError, VertebraError, did_you_mean

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, VertebraError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_docstring_draws_the_class_as_it_is(kind):
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"\b{kind.__name__}\b", line))
    drawn = re.search(rf"{kind.__name__} \((\w+)\)", line)
    builtins = [base.__name__ for base in kind.__bases__ if not issubclass(base, VertebraError)]
    assert builtins == ([drawn[1]] if drawn else []) or kind is VertebraError
    assert kind.__doc__


def test_a_caller_who_does_not_know_us_catches_the_built_in():
    for kind, built_in in ((errors.ConfigError, ValueError), (errors.CheckpointError, OSError)):
        with pytest.raises(built_in):
            raise kind("no")
    with pytest.raises(ImportError, match=r"reading pages needs `pdfium`.*pip install 'vertebra\[docs\]'"):
        raise MissingPartError("reading pages", "pdfium", "docs")
    with pytest.raises(VertebraError, match="pip install wandb"):
        raise MissingPartError("watching", "wandb")


def test_an_unknown_name_offers_the_nearest_and_lists_a_few():
    error = UnknownNameError("stage", "allign", ["finetune", "align"], hint="Stages are OpenVLA's.")
    expected = "unknown stage `allign`. Did you mean `align`? Known: align, finetune. Stages are OpenVLA's."
    assert str(error) == expected
    assert (error.name, error.valid) == ("allign", ["align", "finetune"])
    many = [f"name-{number}" for number in range(61)]
    assert "Known" not in str(UnknownNameError("id", "name-1o", many[:13]))  # the nearest are named
    assert str(UnknownNameError("id", "x", many[:60])).endswith("name-9.")  # no name is near: all of them
    assert "Known" not in str(UnknownNameError("id", "x", many))
    assert str(UnknownNameError("id", "x", [])) == "unknown id `x`. Known: none."


@given(st.text("abcd", min_size=1, max_size=6), st.lists(st.text("abcdABCD", min_size=1, max_size=6), max_size=6))
def test_the_nearest_names_whatever_their_case(name: str, valid: list[str]):
    reply = re.findall("`(.*?)`", did_you_mean(name, valid))
    near = [v for v in valid if difflib.SequenceMatcher(None, v.lower(), name.lower()).ratio() >= 0.5]
    assert set(reply) <= set(near)
    assert bool(reply) == bool(near)
    assert len(reply) <= 3
    if name in [v.lower() for v in valid]:
        assert reply[0].lower() == name

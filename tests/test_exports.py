"""Every public name resolves, is documented, and lives where the table says."""

from __future__ import annotations

import importlib

import pytest

import vertebra


@pytest.mark.parametrize("name", [n for n in vertebra.__all__ if n != "__version__"])
def test_public_name(name: str):
    value = getattr(vertebra, name)
    home = importlib.import_module(vertebra._HOME[name])
    assert getattr(home, name) is value
    assert (value.__doc__ or "").strip(), f"vertebra.{name} has no docstring"
    assert name in dir(vertebra)


def test_unknown_name_offers_the_nearest():
    with pytest.raises(AttributeError, match="TokenSequence"):
        _ = vertebra.TokenSequenze

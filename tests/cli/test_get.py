"""`vertebra get`: what it lists, and which options do not go together."""

from __future__ import annotations

from vertebra.backbone.real import REAL


def test_every_real_model_is_listed(vertebra):
    done = vertebra("get", "--list")
    assert done.code == 0
    assert all(name in done.out for name in REAL)


def test_what_does_not_go_together(vertebra):
    assert "leave the names out" in vertebra("get", next(iter(REAL)), "--list").err.replace("\n", " ")
    assert "name a model" in vertebra("get").err

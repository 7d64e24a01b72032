"""Loading makes no search for garbage, and whatever becomes of it, searches go on as before."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vertebra.backbone.registry import load_backbone
from vertebra.errors import VertebraError


@pytest.fixture
def searches() -> Iterator[list[int]]:
    """The generations that are searched."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.enable()


def test_a_model_loads_without_a_search(searches: list[int]):
    usual = gc.get_threshold()
    gc.set_threshold(50)  # so that so small a model has some
    try:
        begun = len(searches)
        load_backbone.__wrapped__("tiny-llama2", inference_mode=True, weights=True)  # type: ignore[attr-defined]
        plain = len(searches) - begun
        begun = len(searches)
        load_backbone("tiny-llama2", inference_mode=True, weights=True)
        ours = len(searches) - begun
    finally:
        gc.set_threshold(*usual)
    assert plain > 20
    assert ours <= 2, "before it begins, and once it is over"
    assert gc.isenabled()


def test_searches_go_on_after_a_failure(searches: list[int], tmp_path):
    with pytest.raises(VertebraError):
        load_backbone(str(tmp_path))
    assert gc.isenabled()


def test_whoever_switched_them_off_keeps_them_off(searches: list[int]):
    gc.disable()
    load_backbone("tiny-llama2", inference_mode=True)
    assert not gc.isenabled()

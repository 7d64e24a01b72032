"""`vertebra plan`: amounts that people can read, and numbers and pictures that cannot be."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vertebra.cli.plan import amount_text, time_text
from vertebra.training.planning.plan import BOUNDS

RECIPE = (
    "plan",
    "chat-full",
    "--set",
    "model.backbone=tiny-llama2",
    "--set",
    "data.block=32",
    "--set",
    "optim.batch=1",
)


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0.0, "less than a second"), (1e-7, "less than a second"), (1 / 86400, "1 second"), (3.4 / 86400, "3.4 seconds"),
        (90 / 86400, "1.5 minutes"), (1 / 24, "1 hour"), (0.5, "12 hours"), (1.0, "1 day"), (12.34, "12.3 days"),
        (500.0, "500 days"), (3652.5, "10 years"), (1e9, "2,737,851 years"),
    ],
)  # fmt: skip
def test_times(days: float, text: str):
    assert time_text(days) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.0, "0"), (1e-9, "less than 0.001"), (0.0019, "0.0019"), (1.0, "1"), (12.345, "12.3"), (99.94, "99.9"),
     (1234.5, "1,234"), (1e7, "10,000,000")],
)  # fmt: skip
def test_amounts(amount: float, text: str):
    assert amount_text(amount) == text


def test_no_amount_is_rounded_to_nothing_or_has_an_exponent():
    for power in range(-30, 15):
        for number in (1.0, 1.5, 9.994, 9.996):
            value = number * 10.0**power
            for text in (amount_text(value), time_text(value)):
                number_text = text.removeprefix("less than ").split()[0]
                assert number_text == "a" or float(number_text.replace(",", "")) > 0
                assert number_text == "a" or not set(number_text) - set("0123456789.,")


def test_a_short_run_takes_time_and_costs_something(vertebra):
    done = vertebra(*RECIPE, "--tokens", "1e9", "--price", "2")
    assert done.code == 0, done.err
    assert "0.00 days" not in done.out
    assert "1e09 tokens take" in done.out
    assert not done.out.rstrip().endswith("cost 0")


OPTIONS = {"memory": "--gpu-memory"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (name, text)
        for name in BOUNDS
        if name not in ("gpus", "images")
        for text in ("nan", "inf", "-1", "1e300")
        if not BOUNDS[name].holds(float(text))
    ],
)
def test_numbers_that_cannot_be(vertebra, name: str, text: str):
    more = ("--tokens", "1e9") if name == "price" else ()
    done = vertebra(*RECIPE, *more, OPTIONS.get(name, f"--{name}"), text)
    assert done.code == 1
    assert f"{name} is {float(text)}; expected {BOUNDS[name]}" in done.err
    assert math.isnan(float(text)) or done.out == ""


def test_all_of_them_at_once_and_a_price_of_nothing(vertebra):
    done = vertebra(*RECIPE, "--mfu", "2", "--gpus", "-1", "--images", "-1", "--price", "1")
    assert done.code == 1
    for part in ("mfu is 2.0", "gpus is -1", "images is -1", "price is given without tokens"):
        assert part in done.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("{hidden_size: 0}", "`hidden_size` is 0; expected 1 or more"),
        ("{num_hidden_layers: many}", "`num_hidden_layers` cannot be 'many'"),
        ("{num_hidden_layers: -1}", "`num_hidden_layers` is -1; expected 1 or more"),
    ],
)
def test_shapes_that_no_model_has(vertebra, overrides: str, message: str):
    done = vertebra(*RECIPE, "--set", f"model.overrides={overrides}")
    assert done.code == 1
    assert message in done.err


def test_rows_beyond_all_memory(vertebra):
    done = vertebra(*RECIPE[:-2], "--set", "optim.batch=1000000000000000000")
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert "cannot be" in done.err


def test_pictures(vertebra, tmp_path: Path):
    for name, begins in (("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c", b"\x89PNG")):
        assert vertebra(*RECIPE, "--picture", str(tmp_path / name)).code == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.svg", "c"]
    for name, code, message in (
        (str(tmp_path / "d.nope"), 1, "unknown kind of picture `nope`"),
        (str(tmp_path / "none" / "e.png"), 1, "cannot be written: No such file or directory"),
        ("a" * 5000 + ".png", 1, "File name too long"),
        (str(tmp_path), 1, "Is a directory"),
        ("", 2, "the name is empty"),
    ):
        done = vertebra(*RECIPE, "--picture", name)
        assert done.code == code
        assert message in done.err

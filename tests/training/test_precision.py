"""`optim.precision: auto` takes what is faster here, says so, and a run that goes on keeps what it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.models import config
from vertebra import config as configs
from vertebra.training import precision
from vertebra.training.precision import resolved, speed_of_bf16


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch):
    def set_speed(value: float) -> None:
        monkeypatch.setattr(precision, "speed_of_bf16", lambda: value)

    return set_speed


@pytest.mark.parametrize(("faster", "chosen"), [(4.0, "bf16"), (1.1, "fp32"), (0.02, "fp32")])
def test_auto_is_what_multiplies_faster(faster, chosen, speed, caplog):
    speed(faster)
    with caplog.at_level("INFO"):
        assert resolved(config(optim__precision="auto")).optim.precision == chosen
    assert f"optim.precision=auto: {chosen} (bf16 products take {1 / faster:.2f} × the time" in caplog.text


def test_bf16_where_it_is_slow_is_reported_and_kept(speed, caplog):
    speed(0.02)
    assert resolved(config(optim__precision="bf16")).optim.precision == "bf16"
    (record,) = caplog.records
    assert "multiplies 50 × slower in bf16 than in fp32; give fp32, or `auto`" in record.message


@pytest.mark.parametrize("given", ["fp32", "bf16"])
def test_what_is_fast_enough_needs_no_words(given, speed, caplog):
    speed(3.0)
    assert resolved(config(optim__precision=given)).optim.precision == given
    assert not caplog.records


def test_a_run_that_goes_on_keeps_its_precision(tmp_path: Path, speed):
    speed(4.0)
    record = configs.write(config(optim__precision="fp32"), tmp_path / "run.yaml") or tmp_path / "run.yaml"
    assert resolved(config(optim__precision="auto"), recorded=record).optim.precision == "fp32"
    assert resolved(config(optim__precision="auto"), recorded=tmp_path / "none.yaml").optim.precision == "bf16"


def test_the_probe_measures():
    assert speed_of_bf16() > 0

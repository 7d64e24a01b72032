"""A kind of one's own in its parts: rows of its own columns, settings of its own, faults of its rows, tokens and slots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.models import config
from vertebra.data import ModelFacts, batches
from vertebra.data.read.formats import FORMATS, SampleFormat, register_format
from vertebra.errors import ConfigError, DataError
from vertebra.sequence.tokens import TokenSequence
from vertebra.tasks.chain import read_data
from vertebra.tasks.config import DataConfig
from vertebra.tasks.registry import TASKS, kinds_for, register_task, task_named
from vertebra.tasks.task import Job, Task, answered
from vertebra.training.building import build_model
from vertebra.training.data import build_data
from vertebra.training.planning.outline import outline


@dataclass(frozen=True)
class Sum:
    """Two numbers."""

    one: int
    two: int


def read_sum(fields: Any, columns: tuple[str, ...]) -> Sum:
    return Sum(*(int(fields[name]) for name in columns))


class Adding(Task):
    """Two numbers and what they make, the answer as an added token, thought of in two slots."""

    name = "adding"
    reads = ("sums",)
    settings = ("block", "too_long", "batching")

    @dataclass(frozen=True, kw_only=True)
    class Options:
        highest: int = 9
        thinks: bool = False

    def tokens(self, data: DataConfig) -> tuple[str, ...]:
        return tuple(f"<{number}>" for number in range(2 * self.options(data).highest + 1))

    def queries(self, data: DataConfig) -> dict[str, int]:
        return {"thought": 2} if self.options(data).thinks else {}

    def sequence(self, sample: Sum, job: Job) -> TokenSequence:
        options, tokenizer = self.options(job.data), job.model.tokenizer
        if max(sample.one, sample.two) > options.highest:
            raise DataError(f"{sample.one} and {sample.two}: the highest number is {options.highest}")
        asked = tokenizer(f"{sample.one} {sample.two}").input_ids
        slots = [(0, 0), (0, 1)] if options.thinks else []
        ids = [*asked, *[asked[0]] * len(slots), tokenizer.convert_tokens_to_ids(f"<{sample.one + sample.two}>")]
        return TokenSequence.of(
            ids,
            weight=[0.0] * (len(ids) - 1) + [1.0],
            slot=[(-1, -1)] * len(asked) + slots + [(-1, -1)],
            segments=("thought",) if slots else (),
        )


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    before = dict(TASKS), dict(FORMATS)
    register_task(Adding)
    register_format(SampleFormat("sums", (("a", "b"),), read_sum, makes=Sum))
    yield
    for table, old in zip((TASKS, FORMATS), before, strict=True):
        table.clear()
        table.update(old)  # type: ignore[call-overload]


def sums(folder: Path, *more: tuple[int, int]) -> str:
    path = folder / "sums.jsonl"
    rows = [(a, b) for a in range(3) for b in range(4)] + list(more)
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows))
    return str(path)


@pytest.mark.parametrize("thinks", [False, True])
def test_rows_of_its_own_columns_become_its_sequences(thinks: bool, tmp_path: Path):
    run = config(
        model={"backbone": "tiny-llama2"},
        data={"kind": "adding", "path": sums(tmp_path), "held_out": 0.0, "options": {"thinks": thinks}},
    )
    model = build_model(run)
    samples = build_data(run, model).train
    assert samples is not None
    assert len(samples) == 12
    tokenizer = model.tokenizer
    for index in range(12):
        sequence = samples.sequence(index)
        assert tokenizer.convert_ids_to_tokens(int(sequence.ids[-1])) == f"<{index // 4 + index % 4}>"
        assert sequence.weight.tolist() == [0.0] * (len(sequence) - 1) + [1.0]
        assert sequence.slot_count("thought") == 2 if thinks else not sequence.segments
    assert set(model.parts) == ({"thought"} if thinks else set())
    assert set(outline(run).parts) == set(model.parts)
    (batch,) = batches(model, run.data, batch=16, batching="shuffled")
    assert batch.rows == 12
    assert np.isfinite(float(model(**batch).loss.detach()))


def test_what_it_cannot_say_is_a_fault_of_its_row(tmp_path: Path):
    path = sums(tmp_path, (12, 1))
    facts = ModelFacts.find("tiny-llama2", tokens=task_named("adding").tokens(DataConfig(kind="adding", path=path)))
    with pytest.raises(DataError, match=r"sums\.jsonl:13: 12 and 1: the highest number is 9"):
        read_data(Job(data=DataConfig(kind="adding", path=path), model=facts))
    kept = read_data(Job(data=DataConfig(kind="adding", path=path, on_bad="skip", held_out=0.0), model=facts))
    assert kept.train is not None
    assert len(kept.train) == 12
    assert kinds_for(is_encoder=False, format="sums") == ["adding"], "and so `data show` needs no kind"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"highes": 3}, "Did you mean `highest`"), ({"highest": "many"}, "expected an integer")],
)
def test_its_own_settings_are_checked_as_any(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        config(data={"kind": "adding", "path": "x", "options": options})


def test_names_that_are_taken():
    with pytest.raises(ConfigError, match="a kind `adding` exists already"):
        register_task(Adding)
    with pytest.raises(ConfigError, match="a subclass of `Task`"):
        register_task(Sum)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="a format `chat` exists already"):
        register_format(SampleFormat("chat", (("a",),), read_sum))


def test_a_changed_kind_meets_no_old_cache(tmp_path: Path):
    data = DataConfig(kind="adding", path=sums(tmp_path))
    job = Job(data=data, model=ModelFacts.find("tiny-llama2"))

    class Other(Adding):
        """Another one of the same name."""

    one, other = Adding().encoder(job), Other().encoder(job)
    assert dict(one.options()) != dict(other.options())


def test_prompts_that_are_answered_leave_the_generators_alone():
    import torch

    from vertebra.backbone.registry import load_backbone
    from vertebra.model.model import Model

    model = Model(load_backbone("tiny-llama2"))
    before = torch.get_rng_state()
    answer = answered(model, TokenSequence.of(model.tokenizer("Hello").input_ids), 3)
    assert isinstance(answer, str)
    assert torch.equal(torch.get_rng_state(), before)

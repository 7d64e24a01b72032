"""Configs: what is written is read back, and every fault is told by its dotted name, all at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra import config
from vertebra.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["cosine", "linear", "off"] = "cosine"
    fused: bool | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}; expected above 0")


@dataclass(frozen=True, kw_only=True)
class Source:
    path: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    steps: int = 10
    optim: Optim = field(default_factory=Optim)
    extra: Optim | None = None
    sources: list[Source] = field(default_factory=list)
    tokens: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    cache: bool | str = True


runs = st.builds(
    Run,
    name=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1),
    steps=st.integers(-5, 10**9),
    optim=st.builds(Optim, lr=st.floats(1e-12, 1e6), schedule=st.sampled_from(["cosine", "off"])),
    extra=st.none() | st.just(Optim(lr=0.5, fused=True)),
    sources=st.lists(st.builds(Source, path=st.sampled_from(["a", "1e-4", "no", "null"]), weight=st.floats(0, 2))),
    tokens=st.lists(st.sampled_from(["<ACT>", "on", "3"])).map(tuple),
    options=st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text("xyz") | st.none()),
    folder=st.none() | st.just(Path("a/b")),
    cache=st.booleans() | st.sampled_from(["here", "true"]),
)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@settings(max_examples=30, deadline=None)
@given(run=runs)
def test_what_is_written_is_read_back(suffix: str, run: Run, tmp_path_factory: pytest.TempPathFactory):
    path = config.write(run, tmp_path_factory.getbasetemp() / f"run.{suffix}")
    assert config.read(Run, path) == run


def test_all_faults_at_once():
    tree = {"stps": 3, "optim": {"lr": "fast", "shedule": "cosine", "schedule": "cosin"}, "sources": [{"weight": 1}]}
    with pytest.raises(ConfigError) as caught:
        config.build(Run, tree, where="recipe.yaml")
    text = str(caught.value)
    for part in (
        "recipe.yaml",
        "`stps`. Did you mean `steps`?",
        "name: missing",
        "optim.lr: str 'fast'; expected a number",
        "`optim.shedule`. Did you mean `schedule`",
        "expected one of cosine, linear, off. Did you mean `cosine`?",
        "sources.0.path: missing",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("override", "get", "expected"),
    [
        ("steps=7", lambda r: r.steps, 7),
        ("steps=1e3", lambda r: r.steps, 1000),
        ("optim.lr=3e-5", lambda r: r.optim.lr, 3e-5),
        ("optim.betas=0.8,0.9", lambda r: r.optim.betas, (0.8, 0.9)),
        ("optim.fused=true", lambda r: r.optim.fused, True),
        ("optim.fused=null", lambda r: r.optim.fused, None),
        ("name=123", lambda r: r.name, "123"),
        ("name=a=b", lambda r: r.name, "a=b"),
        ("folder=x/y", lambda r: r.folder, Path("x/y")),
        ("extra.lr=2", lambda r: r.extra, Optim(lr=2.0)),
        ("sources.1.weight=0.5", lambda r: r.sources[1].weight, 0.5),
        ("tokens=<A>,<B>", lambda r: r.tokens, ("<A>", "<B>")),
        ("options.depth=3", lambda r: r.options, {"depth": 3}),
        ("cache=false", lambda r: r.cache, False),
        ("cache=/tmp/x", lambda r: r.cache, "/tmp/x"),
    ],
)
def test_overrides_are_read_by_type(override: str, get: Any, expected: Any):
    tree = {"name": "a", "sources": [{"path": "a"}, {"path": "b"}]}
    found = get(config.build(Run, config.apply(Run, tree, [override])))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stps=3", "Did you mean `steps`"),
        ("lr=3", "Did you mean `optim.lr` or `extra.lr`"),
        ("optim.lrr=3", "unknown setting `optim.lrr`. Did you mean `lr`"),
        ("steps.more=3", "`steps` is one value"),
        ("sources.4.path=x", "a list of 2; `4` is no index"),
        ("steps", "expected `name=value`"),
        ("steps=many", "steps: str 'many'; expected an integer"),
        ("optim.lr=-1", "optim: lr is -1.0; expected above 0"),
        ("optim.schedule=off", "quote the word"),
        ("options={", "cannot be parsed"),
    ],
)
def test_wrong_overrides(override: str, message: str):
    tree = {"name": "a", "sources": [{"path": "a"}, {"path": "b"}]}
    with pytest.raises(ConfigError) as caught:
        config.build(Run, config.apply(Run, tree, [override]))
    assert message in str(caught.value)


def test_overrides_leave_the_tree_alone():
    tree = {"name": "a", "optim": {"lr": 1.0}}
    config.apply(Run, tree, ["optim.lr=2"])
    assert tree == {"name": "a", "optim": {"lr": 1.0}}


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", '{"a": 1, "a": 2}'])
def test_a_key_twice_is_refused(tmp_path: Path, text: str):
    path = tmp_path / ("x.json" if text.startswith("{") else "x.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError, match="given twice"):
        config.read_mapping(path)


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_mapping(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match="cannot be parsed"):
        config.read_mapping(bad)
    bad.write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        config.read_mapping(bad)
    bad.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.read_mapping(bad)


def test_differences_name_settings():
    before = Run(name="a")
    after = replace(before, steps=11, optim=Optim(lr=2.0))
    assert config.differences(before, after) == ["steps: 10 → 11", "optim.lr: 0.0001 → 2.0"]


@dataclass(frozen=True, kw_only=True)
class Bounded:
    rows: Annotated[int, config.Bound(least=1)] = 8
    share: Annotated[float, config.Bound(least=0, below=1)] = 0.5
    rate: Annotated[float, config.Bound(above=0)] | None = None
    pair: tuple[Annotated[float, config.Bound(most=1)], Annotated[float, config.Bound(most=1)]] = (0.1, 0.2)
    many: tuple[Annotated[int, config.Bound(least=0)], ...] = ()
    name: Annotated[str, config.Filled(line=True, most=20)] = "a"
    place: Annotated[str, config.Filled()] | None = None
    free: float = 0.0
    inner: Optim = field(default_factory=Optim)

    def __post_init__(self) -> None:
        config.require_bounds(self)


OUT_OF_BOUNDS = {
    "rows": (0, "rows is 0; expected 1 or more"),
    "share": (1.0, "share is 1.0; expected at least 0 and below 1"),
    "rate": (0.0, "rate is 0.0; expected above 0"),
    "pair": ((0.5, 1.5), "pair.1 is 1.5; expected at most 1"),
    "many": ((1, -1), "many.1 is -1; expected 0 or more"),
    "name": ("a\nb", r"name is 'a\nb'; expected one line of text, not empty, of at most 20 bytes"),
    "place": (" ", "place is ' '; expected text without NUL, not empty"),
}


def test_every_value_out_of_bounds_at_once_from_a_tree_and_in_python():
    tree = {name: list(value) if isinstance(value, tuple) else value for name, (value, _) in OUT_OF_BOUNDS.items()}
    for make in (lambda: config.build(Bounded, tree), lambda: Bounded(**{n: v for n, (v, _) in OUT_OF_BOUNDS.items()})):
        with pytest.raises(ConfigError) as caught:
            make()
        for _, message in OUT_OF_BOUNDS.values():
            assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 21, "é" * 11, "a\0", "\x1b[31m", ""])
def test_names_that_no_folder_has(name: str):
    with pytest.raises(ConfigError, match="name is"):
        Bounded(name=name)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", ".nan", ".inf", "1e400", "9" * 400])
@pytest.mark.parametrize("setting", ["share", "rate", "free", "inner.lr", "pair"])
def test_a_number_is_finite(setting: str, text: str):
    """Comparisons with NaN are all false, so that a plain `value < 0` lets it pass."""
    given_text = f"{text},0.5" if setting == "pair" else text
    with pytest.raises(ConfigError, match=r"expected a finite number|expected a number"):
        config.resolve(Bounded, {}, [f"{setting}={given_text}"])
    with pytest.raises(ConfigError, match=r"finite|expected"):
        config.build(Bounded, {"share": float(text.strip("."))})


@pytest.mark.parametrize(
    "text", ["9" * 19, "9" * 5000, "1e19", "1e400", "-" + "9" * 40, "nan", "2024-99-99", "[" * 3000]
)
def test_an_integer_is_one_of_64_bits(text: str):
    with pytest.raises(ConfigError, match=r"steps.*(expected an integer|cannot be parsed)"):
        config.resolve(Run, {"name": "a"}, [f"steps={text}"])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize(
    "text", ['{"steps": ' + "9" * 5000 + "}", "[" * 100_000, '{"a": [1, }', '{"a": 2024-99-99}', "? [1]\n: 2\n", "\0"]
)
def test_texts_that_a_parser_chokes_on(suffix: str, text: str, tmp_path: Path):
    path = tmp_path / f"x.{suffix}"
    path.write_text(text)
    with pytest.raises(ConfigError, match="x." + suffix):
        config.read_mapping(path)


def test_bytes_that_are_no_text_are_refused():
    """They come from a terminal, and could not be written into the resolved config."""
    with pytest.raises(ConfigError, match=r"name: str '\\udcff'; expected text"):
        config.resolve(Run, {}, ["name=\udcff"])


def test_wrong_overrides_come_all_at_once_and_with_the_faults_of_the_file():
    overrides = ["stps=3", "optim.lrr=1", "steps=many", "nothing", "sources.4.path=x", "extra.lr=-1", "steps.more=1"]
    tree: dict[str, Any] = {"name": "a", "sources": [{"path": "a"}], "optim": {"shedule": "off"}, "tokns": []}
    with pytest.raises(ConfigError) as caught:
        config.resolve(Run, tree, overrides, where="recipe.yaml")
    text = str(caught.value)
    for part in (
        "faults in recipe.yaml:",
        "`stps`. Did you mean `steps`",
        "`optim.lrr`",
        "steps: str 'many'",
        "override `nothing`",
        "a list of 1; `4` is no index",
        "extra: lr is -1.0",
        "`steps.more` does not exist",
        "`optim.shedule`",
        "`tokns`",
    ):
        assert part in text, part
    with pytest.raises(ConfigError, match=r"`stps`[\s\S]*`optim\.lrr`"):
        config.apply(Run, tree, overrides)


def test_a_message_quotes_a_long_value_shortened():
    with pytest.raises(ConfigError) as caught:
        config.resolve(Run, {}, [f"steps={'x' * 5000}", "y" * 5000, f"cache.{'z' * 5}=1"])
    assert len(str(caught.value)) < 1500

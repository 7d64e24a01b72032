"""The import floors of docs/design.md: imports go down, never up, never along one; those inside functions too."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "vertebra"
DESIGN = (Path(__file__).parent.parent / "docs" / "design.md").read_text(encoding="utf-8")

FLOORS: list[set[str]] = [
    {"errors"},
    {"lazy", "log", "folders", "reading", "protobuf", "webpage"},
    {"config", "wire"},
    {"compat", "client"},
    {"sequence", "page"},
    {"prompt", "action"},
    {"backbone", "episodes", "layout"},
    {"model"},
    {"decode", "tune", "data", "simulate"},
    {"tasks", "policies", "documents"},
    {"training", "interop", "serve"},
    {"evaluate", "checks", "bulk"},
    {"cli"},
]
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}

# The only doors through which transformers enters.
TRANSFORMERS_DOORS = (
    "compat",
    "backbone",
    "model.encoders.vision",
    "decode.state",
    "decode.hf",
    "data.encode",
    "training",
)


# The same inside a package: its rooms and files from the ground up. Those of one set do not know each other.
ROOMS: dict[str, list[set[str]]] = {
    "episodes": [
        {"needed", "recent", "facts", "report", "statistics", "wire", "schema"},
        {"tables", "pictures", "modality", "films", "given", "recorders", "view"},
        {"tasks", "videos", "sheets", "splice", "written"},
        {"places"},
        {"episode_set"},
        {"former", "check_videos"},
        {"ledger", "check"},
        {"writer", "upgrade"},
        {"convert"},
    ],
    "data": [{"read"}, {"samples"}, {"encode"}, {"reading", "model_facts"}, {"loaders"}, {"look"}],
    "decode": [
        {"allowed", "keys", "state"},
        {"settings", "prefilled"},
        {"choose"},
        {"result", "slots", "start", "asking"},
        {"hf", "engine", "scoring"},
        {"call", "parallel", "actions"},
        {"tracing"},
    ],
    "tasks": [
        {"config", "drawn_episodes", "wordings"},
        {"task", "classes", "acting"},
        {
            "text",
            "masked",
            "chat",
            "pairs",
            "squares",
            "quiz",
            "registry",
            "demonstrations",
            "page_sets",
            "page_questions",
        },
        {"orders", "look", "read_sets", "page_samples"},
        {"episodes", "page_report"},
        {"pages"},
        {"chain"},
        {"inspection"},
    ],
    "layout": [{"manners"}, {"record"}, {"lines"}, {"places", "renderer"}, {"rows", "windows"}, {"apart", "drawing"}],
    "page": [
        {"geometry", "units", "files"},
        {"checking", "order", "numbered", "pictures"},
        {"page"},
        {"windows", "pieces", "values", "formats", "metrics", "pdf", "paper"},
        {"ocr"},
        {"reading", "drawing"},
    ],
    "policies": [
        {"observation", "settings", "attach"},
        {"prompts", "memory"},
        {"prefix"},
        {"heads", "fit"},
        {"decision"},
        {"policy"},
        {"facts", "drawn"},
        {"golden"},
        {"golden_files"},
    ],
    "documents": [
        {"field", "keywords", "normalise", "spelled", "settings", "calibration"},
        {"forms"},
        {"schema", "grammar", "found"},
        {"asking"},
        {"answers", "values"},
        {"extract"},
        {"drawing"},
    ],
    "model": [
        {"inject", "inputs", "projectors", "selected", "hook", "aside", "recompute"},
        {"encoders", "heads"},
        {"encoding", "folder", "fresh", "description"},
        {"fit"},
        {"model"},
    ],
}


def cells(heading: str, number: int = 0) -> list[list[str]]:
    """The rows of a table of the design page: the first, second … one under a heading."""
    under = DESIGN.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = re.findall(r"(?:^\|.*\n)+", under, re.MULTILINE)[number]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def test_the_design_page_draws_these_floors_and_rooms():
    names = re.compile(r"`([^`]+)`")
    floors = [(int(row[0]), set(names.findall(row[1]))) for row in cells("Floors")]
    assert floors == list(enumerate(FLOORS))
    unbuilt = set(re.findall(r"\*`([^`]+)`\*", DESIGN))
    assert unbuilt == {package for package in FLOOR if not any(SRC.glob(f"{package}*"))}
    rooms = {names.findall(row[0])[0]: [set(names.findall(r)) for r in row[1].split("→")] for row in cells("Rooms")}
    assert rooms == ROOMS
    paths = [path for row in cells("Rooms", 1) for path in names.findall(row[1])]
    assert [path for path in paths if not (SRC / path).exists()] == []


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = list(path.relative_to(SRC).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, absolute module) of every import in a file, `from vertebra import x` resolved to `vertebra.x`."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports absolutely"
            if node.module == "vertebra":
                found += [(node.lineno, f"vertebra.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module or ""))
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_down_the_floors(path: Path):
    own = name_of(path).split(".")[0]
    if not own:
        return  # the package itself resolves names lazily and imports none at import time
    assert own in FLOOR, f"`{own}` stands on no floor: add it to docs/design.md and to FLOORS"
    wrong = []
    for line, module in imports_of(path):
        if not module.startswith("vertebra."):
            continue
        other = module.split(".")[1]
        if other == "__version__" or other == own:
            continue
        if FLOOR.get(other, 99) >= FLOOR[own]:
            wrong.append(f"{path.name}:{line} imports {module}")
    assert not wrong, f"{own} may import only from floors below it: {wrong}"


@pytest.mark.parametrize("package", ROOMS)
def test_imports_go_down_inside_a_package(package: str):
    height = {room: number for number, rooms in enumerate(ROOMS[package]) for room in rooms}
    wrong = []
    for path in (SRC / package).rglob("*.py"):
        own = name_of(path).split(".")
        if len(own) < 2:
            continue  # the package itself resolves names lazily
        assert own[1] in height, f"`{'.'.join(own)}` stands in no room: add it to ROOMS"
        for line, module in imports_of(path):
            parts = module.split(".")
            if parts[:2] != ["vertebra", package] or len(parts) < 3 or parts[2] == own[1]:
                continue
            if height.get(parts[2], 99) >= height[own[1]]:
                wrong.append(f"{path.relative_to(SRC)}:{line} imports {module}")
    assert not wrong, f"rooms may import only from below: {wrong}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_transformers_enters_through_its_doors_alone(path: Path):
    name = name_of(path)
    if any(name == door or name.startswith(door + ".") for door in TRANSFORMERS_DOORS):
        return
    entered = [line for line, module in imports_of(path) if module.split(".")[0] == "transformers"]
    assert not entered, f"{name} imports transformers on lines {entered}"


def test_no_circles_inside_a_package():
    graph = {name_of(path): {m.removeprefix("vertebra.") for _, m in imports_of(path)} for path in modules()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"imports in a circle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for other in graph.get(name, ()):
            if other in graph and other != name:
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_no_two_classes_share_a_name():
    """A name that is read anywhere leads to one place; private ones are their module's own affair."""
    places: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert not shared, f"names that more than one class has: {shared}"


def test_import_is_light():
    """No torch, no transformers, no numpy: shown by what is loaded, not by a clock."""
    code = "import sys, vertebra; print([m for m in ('torch', 'transformers', 'numpy', 'rich') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom vertebra.cli.main import run\nsys.argv = ['vertebra', '--help']\n"
        "try: run()\nexcept SystemExit: pass\n"
        "print('LOADED', [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "LOADED []" in out

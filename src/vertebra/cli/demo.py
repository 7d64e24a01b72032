"""`vertebra demo`: a robot that learns five tasks and does them (`demo robot` alone); a small model that reads receipts and
forms by where words stand, through real OCR as well (`demo documents`); then three tiny families held against every check, a
prompt in color, a plain training loop and a trace of what it learned, a policy that must look at its image, trained by two
recipes, and real models where they can be fetched (`demo basics`).

The loop is a plain one: nothing of ours but the backbone, the rendering, the batch and the loss.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)

FAMILIES = ("tiny-llama2", "tiny-gemma3", "tiny-qwen2.5")
ANSWERS = {
    "What is in the cup?": "Hot tea.",
    "Where is the red block?": "On the left.",
    "Who moves it?": "The robot.",
}
_STEPS = 60
_REACHED = 0.8


class DemoPart(StrEnum):
    """What can be shown."""

    ALL = "all"
    ROBOT = "robot"
    DOCUMENTS = "documents"
    BASICS = "basics"


@app.command()
def demo(
    part: Annotated[
        DemoPart,
        typer.Argument(
            help="robot: collect, train, evaluate in a simulator; documents: learn to read drawn receipts and forms; "
            "basics: three families and more; all: one after the other."
        ),
    ] = DemoPart.ALL,
    out: Annotated[Path, typer.Option(help="A folder for what the demo writes.", **PATH)] = Path("out"),
    real: Annotated[
        bool,
        typer.Option("--real/--no-real", help="Fetch real models where they can be fetched, and teach them to see."),
    ] = True,
) -> None:
    """A robot learns five tasks from demonstrations and does them, and a small model to read documents; then check three
    models, show a prompt, train one and trace it, train a policy on images, and teach a real model to see."""
    from vertebra.cli.output import console

    _make(out)
    printer = console()
    good = True
    if part in (DemoPart.ALL, DemoPart.ROBOT):
        good = _robot(printer, out)
    if part in (DemoPart.ALL, DemoPart.DOCUMENTS):
        good = _documents(printer, out) and good
    if part in (DemoPart.ALL, DemoPart.BASICS):
        good = _basics(printer, out, real=real) and good
    if not good:
        raise typer.Exit(1)


def _robot(printer: Any, out: Path) -> bool:
    """The main job. Whether it came out as it should: it does the tasks, looks, and listens."""
    from vertebra.cli.demo_robot import robot
    from vertebra.errors import ConfigError, MissingPartError

    printer.rule("a robot: demonstrations, training, five tasks in a simulator")
    try:
        found = robot(printer, out)
    except (MissingPartError, ConfigError) as error:
        printer.print(f"no robot: {error}", soft_wrap=True)
        return False
    swapped = "" if found.swapped is None else f"; asked for the other task of the scene {found.swapped:.0%}"
    printer.print(
        f"robot    does {found.stock:.0%} of stock episodes, {found.wide:.0%} where objects stand anywhere; its blind twin "
        f"{found.blind:.0%}{swapped}",
        soft_wrap=True,
    )
    printer.print(f"written  {found.report}", soft_wrap=True)
    printer.print(f"took     {found.seconds:.0f} s")
    return found.good


def _documents(printer: Any, out: Path) -> bool:
    """Whether a small model reads documents by where words stand, and its twin without boxes does not."""
    from vertebra.cli.demo_documents import documents

    printer.rule("documents: drawn receipts and forms, a small model from scratch, real OCR")
    found = documents(printer, out)
    scans = "no OCR is installed" if found.scans is None else f"{found.scans:.0%} through real OCR"
    printer.print(
        f"documents  {found.boxes:.0%} of fields right with boxes, {found.words:.0%} with words alone (chance is 17%), {scans}",
        soft_wrap=True,
    )
    printer.print(f"written  {found.report}", soft_wrap=True)
    printer.print(f"took     {found.seconds:.0f} s")
    return found.good


def _basics(printer: Any, out: Path, *, real: bool) -> bool:
    from vertebra.cli import demo_real

    start = time.monotonic()
    with _one_thread():
        printer.rule("three families, every check")
        failed = _check(printer)
        printer.rule("a prompt")
        page = _prompt(out)
        printer.rule("a plain PyTorch loop")
        losses, after, backbone = _train(printer)
        picture = _draw(losses, out / "loss.png")
        trace = _trace(backbone, out / "trace.html")
        printer.rule("a policy that looks: a hand to be moved to a square")
        reached, report = _policy(printer, out)
    answered, seen, learnt = "", None, None
    if real and demo_real.real_model(printer):
        printer.rule("a real model")
        answered = demo_real.answer(printer)
        printer.rule("it learns to see: questions about colored shapes")
        seen, learnt = demo_real.sight(printer, out)
    printer.rule("done")
    learned = sum(answer == expected for answer, expected in zip(after, ANSWERS.values(), strict=True))
    printer.print(f"checks   {len(FAMILIES) - len(failed)} of {len(FAMILIES)} families passed")
    printer.print(
        f"answers  {learned} of {len(ANSWERS)} right after {_STEPS} steps; loss {losses[0]:.2f} -> {losses[-1]:.4f}"
    )
    printer.print(f"policy   reaches {reached:.0%} of squares that it has not seen; chance is one in eight")
    if seen is not None:
        shares = f"{seen['accuracy']:.0%} of held-out questions right, where guessing reaches {seen['guessing']:.0%}"
        printer.print(f"real     {answered!r}; about pictures {shares}", soft_wrap=True)
    for path in (page, picture, trace, report, learnt):
        if path is not None:
            printer.print(f"written  {path}", soft_wrap=True)
    printer.print(f"took     {time.monotonic() - start:.0f} s")
    return not failed and learned == len(ANSWERS) and reached >= _REACHED


def _make(folder: Path) -> None:
    from vertebra.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`{folder}` cannot be made: {error.strerror}; name another folder with --out") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from a second thread, and lose much where another program has it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(printer: Any) -> list[str]:
    """One line a family; the whole table only where something is red."""
    from vertebra.backbone.registry import load_backbone
    from vertebra.checks.run import check_backbone
    from vertebra.cli.check import print_report

    failed = []
    for name in FAMILIES:
        report = check_backbone(load_backbone(name))
        ran = [result for result in report.results if result.status != "skip"]
        if report.passed:
            worst = max(result.number or 0.0 for result in ran if (result.bound or "").startswith("≤"))
            printer.print(f"{name}: {len(ran)} checks passed, logits differ by {worst:.1e} at most")
        else:
            failed.append(name)
            print_report(report)
    return failed


def _prompt(out: Path) -> Path:
    """A conversation in color, and the same as a page."""
    from vertebra.backbone.registry import load_backbone
    from vertebra.cli.prompt import rendered, show
    from vertebra.prompt.conversation import turns_of

    backbone = load_backbone("tiny-qwen2.5", inference_mode=True)
    speaker = backbone.prompt_builder_fn(backbone.llm_family, "You are a robot.")
    turns = turns_of(["Where is the cup?"], ["On the left."])
    text, sequence = rendered(backbone, speaker, turns)
    show(backbone, speaker, text, sequence)
    page = out / "prompt.html"
    page.write_text(str(sequence.show(backbone.tokenizer, html=True)), encoding="utf-8")
    return page


def _train(printer: Any) -> tuple[list[float], list[str], Any]:
    """The losses, the greedy answers afterwards, and the model."""
    import torch

    from vertebra.backbone.registry import load_backbone
    from vertebra.prompt.conversation import turns_of
    from vertebra.prompt.rendering import render_many
    from vertebra.sequence.batch import collate
    from vertebra.sequence.loss import sequence_loss
    from vertebra.sequence.masks import plan_attention

    backbone = load_backbone("tiny-llama2")
    talks = [turns_of([question], [answer]) for question, answer in ANSWERS.items()]
    rendered = render_many(talks, backbone.prompt_builder_fn, backbone.tokenizer, anchor=backbone.anchor)
    batch = collate(rendered, pad_id=backbone.pad_token_id)
    attention = plan_attention(batch, backbone.attention_facts, dtype=backbone.dtype)
    before = _answers(backbone)
    optimizer = torch.optim.AdamW(backbone.train().parameters(), lr=3e-3)
    losses = []
    for step in range(_STEPS):
        logits = backbone(batch.input_ids, **attention.kwargs).logits
        loss = sequence_loss(logits, batch.targets, batch.weights, document=batch.document)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            printer.print(f"step {step + 1}: loss {losses[-1]:.4f}")
    after = _answers(backbone)
    for question, first, last in zip(ANSWERS, before, after, strict=True):
        printer.print(f"{question}  before {first!r}, after {last!r}")
    return losses, after, backbone


def _trace(backbone: Any, path: Path) -> Path:
    """One answer, step by step, as a page."""
    from vertebra.decode.tracing.html import trace_page
    from vertebra.decode.tracing.trace import trace
    from vertebra.prompt.rendering import render

    turns = [{"role": "user", "content": next(iter(ANSWERS))}]
    asked = render(turns, backbone.prompt_builder_fn, backbone.tokenizer, anchor=backbone.anchor)
    path.write_text(trace_page(trace(backbone, asked, max_new_tokens=8)), encoding="utf-8")
    return path


def _policy(printer: Any, out: Path) -> tuple[float, Path]:
    """The recipes of the squares: first the projector in front of a frozen model, then both. How many squares it reaches."""
    from vertebra.cli import demo_real
    from vertebra.training.recipes import read_recipe
    from vertebra.training.run import train

    aligned = demo_real.finished(train(read_recipe("squares-align", [f"out={out / 'squares-align'}"]), overwrite=True))
    settings = [f"model.start={aligned.model}", f"out={out / 'squares'}"]
    policy = demo_real.finished(train(read_recipe("squares-parallel", settings), overwrite=True))
    for run in (aligned, policy):
        printer.print(f"{run.folder}: {run.step} steps, success {run.found['success']:.2f}", soft_wrap=True)
    return float(policy.found["success"]), policy.folder / "report.html"


def _answers(backbone: Any) -> list[str]:
    import torch

    from vertebra.prompt.rendering import render

    answers = []
    for question in ANSWERS:
        asked = render(
            [{"role": "user", "content": question}],
            backbone.prompt_builder_fn,
            backbone.tokenizer,
            anchor=backbone.anchor,
        )
        ids = torch.tensor(asked.ids)[None]
        out = backbone.eval().llm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12)
        answers.append(backbone.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


def _draw(losses: list[float], path: Path) -> Path | None:
    """The loss as a picture; without matplotlib a word about how to get it."""
    import importlib.util

    from vertebra import log

    if importlib.util.find_spec("matplotlib") is None:
        log.warn("no picture of the loss: matplotlib is not installed; pip install 'vertebra[train]'")
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.semilogy(range(1, len(losses) + 1), losses)
    axes.set(xlabel="step", ylabel="loss", title="tiny-llama2 learns three answers")
    figure.savefig(path, dpi=120)
    return path

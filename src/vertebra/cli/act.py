"""`vertebra act`: the next actions of a policy for an image and an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.asking import Attn, Device, Dtype, Token

if TYPE_CHECKING:
    from vertebra.policies.decision import Decision
    from vertebra.policies.policy import Policy

app = typer.Typer(add_completion=False)


@app.command()
def act(
    model: Annotated[str, typer.Argument(help="The folder of a policy, or of a run.")],
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="What is to be done.")],
    image: Annotated[
        list[str] | None,
        typer.Option(help="An image file, or CAMERA=FILE where the policy has several cameras; repeatable."),
    ] = None,
    proprio: Annotated[str | None, typer.Option(help="The robot's own numbers: 0.1,0.2,…")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The data set whose units the actions are in.")] = None,
    execute: Annotated[int | None, typer.Option(help="How many actions of the chunk, from the first.")] = None,
    missing: Annotated[str, typer.Option(help="A camera without an image: refuse, or mask.")] = "refuse",
    outside: Annotated[str, typer.Option(help="Actions beyond the data: pass, clamp, or refuse.")] = "pass",
    drawn: Annotated[
        bool, typer.Option("--drawn", help="Draw the observation instead: patches of noise, the mean of all proprio.")
    ] = False,
    golden: Annotated[
        bool, typer.Option("--golden", help="Keep this as the folder's golden pair, which every load computes again.")
    ] = False,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the actions that a policy would take, and how sure it is of them."""
    from vertebra import config
    from vertebra.backbone.registry import require_name
    from vertebra.policies.settings import PolicySettings

    require_name(model)  # before torch is imported for it
    choices = {"missing_camera": missing, "outside": outside, "execute": execute}
    settings = config.build(PolicySettings, choices, where="the options of a policy")
    numbers = _numbers(proprio)
    if drawn and (image or numbers is not None):
        raise typer.BadParameter("--drawn is the whole observation; leave --image and --proprio out")
    from vertebra.interop.acting import policy as load_policy

    loading = "skip" if golden else "warn"  # an older pair is about to be replaced
    options = {"dtype": dtype, "device": device, "attn": attn, "hf_token": token}
    policy = load_policy(model, settings=settings, golden=loading, **options)  # type: ignore[arg-type]
    seen = _seen(policy, image or [], numbers, drawn=drawn, key=key)
    made = policy.decide(seen, instruction, key)
    if golden:
        _keep(policy, model, seen, instruction, key)
    _show(made, json=json)
    if golden and not json:
        from vertebra.cli.output import console

        console().print("kept as the golden pair")


def _images(given: list[str], cameras: Sequence[str]) -> dict[str, str]:
    """{camera: file}; a file without a camera is the first one's. Cameras have names of any kind, and files too: one that
    the policy knows comes first, then a word before the mark, then a file that is there."""
    images: dict[str, str] = {}
    first = cameras[0] if cameras else "image"
    for one in given:
        known = [name for name in cameras if one.startswith(f"{name}=")]
        before, mark, _ = one.partition("=")
        called = bool(mark) and "/" not in before and (before.isidentifier() or not Path(one).exists())
        name = max(known, key=len) if known else before if called else first
        path = one[len(name) + 1 :] if known or called else one
        if not path.strip():
            raise typer.BadParameter(f"--image {one!r} names no file")
        if name in images:
            raise typer.BadParameter(f"--image: two images of camera `{name}`; write CAMERA=FILE for each camera")
        images[name] = path
    return images


def _numbers(given: str | None) -> list[float] | None:
    if given is None:
        return None
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--proprio {given!r:.60}: expected numbers, as in 0.1,0.2,-3") from None


def _seen(policy: Policy, images: list[str], numbers: list[float] | None, *, drawn: bool, key: str | None) -> Any:
    """The observation."""
    from vertebra.policies.drawn import drawn_observation
    from vertebra.policies.observation import Observation

    if drawn:
        return drawn_observation(policy, unnorm_key=key)
    return Observation(images=_images(images, policy.record.cameras), proprio=numbers)


def _keep(policy: Policy, model: str, seen: Any, instruction: str, key: str | None) -> None:
    from vertebra.backbone.source import left_by_run
    from vertebra.policies.golden import golden_pair
    from vertebra.policies.golden_files import write_golden

    write_golden(golden_pair(policy, seen, instruction, key), Path(left_by_run(model)).expanduser())


def _show(made: Decision, *, json: bool) -> None:
    from vertebra.cli.output import console, print_json, table

    if json:
        numbers = {"chunk": made.chunk, "ids": made.ids, "entropy": made.entropy, "confidence": made.confidence}
        lists = {name: None if value is None else value.tolist() for name, value in numbers.items()}
        print_json({"key": made.key, **lists, "outside": made.outside})
        return
    shown = table("step", *(f"{at}" for at in range(made.chunk.shape[1])), "confidence", right=("step",))
    for step, action in enumerate(made.chunk):
        sure = "" if made.confidence is None or step >= len(made.confidence) else f"{made.confidence[step].mean():.2f}"
        shown.add_row(str(step), *(f"{number:.4f}" for number in action), sure)
    out = console()
    out.print(f"in the units of {made.key}", style="bold cyan")
    out.print(shown)
    if made.outside:
        out.print(f"{made.outside} numbers lie beyond everything that `{made.key}` had", style="yellow")

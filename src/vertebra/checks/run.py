"""Run the checks on a loaded backbone and report; the backbone is afterwards as it was before.

A check that a broken model ends with an error is red, with the error for its number. It knows no command line.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from vertebra.backbone.facts import GUESSED
from vertebra.backbone.registry import load_backbone
from vertebra.checks.results import Measure, Report, Result, Skip
from vertebra.checks.subject import Subject
from vertebra.checks.table import CHECKS, Check
from vertebra.checks.unchanged import unchanged
from vertebra.errors import BackboneError, ConfigError, UnknownNameError, VertebraError
from vertebra.model.model import model_of

# What torch, transformers and tokenizers raise when a model is not what it says.
_BROKEN = (VertebraError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError)


def check(
    model: Any,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    on_start: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Report:
    """Hold a model against every correctness check, or against those named in `only` and not in `skip`.

    `model`: a name, which is loaded with `options` (those of `load_backbone`), a backbone or a `Model`.
    `on_start(name, number, total)` is called before each check, and with the name `loading` before the model is loaded.
    """
    chosen = chosen_checks(only=only, skip=skip)  # a typo must not cost a load
    if isinstance(model, str | Path):
        if on_start is not None:
            on_start("loading", 0, len(chosen))
        return check_backbone(load_backbone(model, **options), only=only, skip=skip, on_start=on_start)
    if options:
        raise ConfigError(f"{', '.join(options)}: the model is loaded already; give its name, or load it with them")
    return check_backbone(model_of(model).backbone, only=only, skip=skip, on_start=on_start)


def check_backbone(
    backbone: Any,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    on_start: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Hold a backbone with weights against every check, or against those named in `only` and not in `skip`.

    `on_start(name, number, total)` is called before each. Whatever fails, the report is whole.
    """
    chosen = chosen_checks(only=only, skip=skip)
    backbone.require_members()
    if any(parameter.is_meta for parameter in backbone.parameters()):
        raise BackboneError(f"`{backbone.identifier}` has no weights to check; call load_weights(folder) first")
    results = []
    for number, check in enumerate(chosen, 1):
        if on_start is not None:
            on_start(check.name, number, len(chosen))
        results.append(_run(check, backbone))
    return Report(
        model=backbone.identifier, facts=_facts(backbone), guesses=guesses_of(backbone), results=tuple(results)
    )


def chosen_checks(*, only: Collection[str] = (), skip: Collection[str] = ()) -> list[Check]:
    """The checks of the table that are asked for; an unknown name offers the nearest."""
    for name in (*only, *skip):
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS, hint=f"Known: {', '.join(CHECKS)}.")
    return [check for name, check in CHECKS.items() if (not only or name in only) and name not in skip]


def _run(check: Check, backbone: Any) -> Result:
    start = time.perf_counter()
    outcome: Measure | Skip | str
    with tempfile.TemporaryDirectory(prefix="vertebra-check-") as scratch, unchanged(backbone):
        try:
            outcome = check.run(Subject(backbone, Path(scratch)))
        except _BROKEN as error:
            outcome = f"{type(error).__name__}: {error}"
    return Result.of(check.name, outcome, mend=check.mend, seconds=time.perf_counter() - start)


def _facts(backbone: Any) -> dict[str, Any]:
    return {
        "family": backbone.llm_family,
        "class": type(backbone.llm).__name__,
        "attention": backbone.attn,
        "window": backbone.attention_facts.window,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": str(backbone.device),
        "mode": "inference" if backbone.inference_mode else "training",
    }


def guesses_of(backbone: Any) -> dict[str, str]:
    """What was read off a model that no family describes; nothing for one of a family."""
    if not backbone.facts_guessed:
        return {}
    family = backbone.family
    values = {
        "anchor": family.anchor,
        "pad rule": f"the general one: `{backbone.tokenizer.pad_token}`",
        "prompt builder": family.builders[0][1],
        "layer class": f"{family.layer_cls} at `{family.layers}`",
        "half-precision type": family.half_precision,
    }
    return {name: values[name] for name in GUESSED}

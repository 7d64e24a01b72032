"""Run the checks on a loaded backbone and report; the backbone is afterwards as it was before.

A check that a broken model ends with an error is red, with the error for its number. It knows no command line.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra.action.record import POLICY
from vertebra.backbone.facts import GUESSED
from vertebra.backbone.registry import load_backbone, row_of
from vertebra.backbone.source import RECORD, left_by_run
from vertebra.checks.catalog import CHECKS, Check
from vertebra.checks.policies import OF_POLICIES, PolicyCheck
from vertebra.checks.results import Measure, Report, Result, Skip
from vertebra.checks.subject import Subject
from vertebra.checks.unchanged import unchanged
from vertebra.decode.start import eval_mode
from vertebra.errors import BackboneError, ConfigError, UnknownNameError, VertebraError
from vertebra.interop.load import load
from vertebra.interop.openvla.hub import openvla_folder
from vertebra.model.description import holds_parts
from vertebra.model.model import Model, model_of
from vertebra.policies.policy import Policy
from vertebra.reading import read_json
from vertebra.tune.record import is_adapter_folder

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
    folder: Path | None = None
    if isinstance(model, str | Path):
        folder = _policy_folder(model, options.get("hf_token"))
        if folder is not None and is_adapter_folder(folder) and any(isinstance(check, Check) for check in chosen):
            raise ConfigError(
                f"`{model}` is an adapter, and checks of backbones change what they look at; merge it first, or hold it as a "
                f"policy alone: --only {','.join(OF_POLICIES)}"
            )
        if on_start is not None:
            on_start("loading", 0, len(chosen) if folder else sum(isinstance(check, Check) for check in chosen))
        model = load_backbone(model, **options) if folder is None else load(model, inference_mode=False, **options)
    elif options:
        raise ConfigError(f"{', '.join(options)}: the model is loaded already; give its name, or load it with them")
    whole = model_of(model)
    report = check_backbone(whole.backbone, only=only, skip=skip, on_start=on_start)
    if POLICY not in whole.record:
        return report
    of_policies = [check for check in chosen if isinstance(check, PolicyCheck)]
    return _with_policy(report, whole, folder, of_policies, on_start)


def _policy_folder(name: str | Path, token: str | None) -> Path | None:
    """The folder of a model that records how it acts, or of OpenVLA's kin; None for any other name."""
    theirs = openvla_folder(name, token=token)
    if theirs is not None:
        return Path(theirs)
    folder = Path(left_by_run(name)).expanduser()
    if row_of(str(name)) is not None or not (holds_parts(folder) or is_adapter_folder(folder)):
        return None
    if not (folder / RECORD).is_file():  # an adapter of PEFT's own
        return None
    return folder if POLICY in (read_json(folder / RECORD).get("record") or {}) else None


def _with_policy(
    report: Report,
    model: Model,
    folder: Path | None,
    chosen: list[PolicyCheck],
    on_start: Callable[[str, int, int], None] | None,
) -> Report:
    """The report with the checks of a policy."""
    results = [result for result in report.results if result.name not in OF_POLICIES]
    for number, check in enumerate(chosen, 1):
        if on_start is not None:
            on_start(check.name, number, len(chosen))
        start = time.perf_counter()
        outcome: Measure | Skip | str
        try:
            with eval_mode(model):
                outcome = check.run(Policy(model), folder)
        except _BROKEN as error:
            outcome = f"{type(error).__name__}: {error}"
        results.append(Result.of(check.name, outcome, mend=check.mend, seconds=time.perf_counter() - start))
    return replace(report, results=tuple(results))


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
    named = chosen_checks(only=only, skip=skip)
    chosen = [check for check in named if isinstance(check, Check)]
    backbone.require_members()
    if any(parameter.is_meta for parameter in backbone.parameters()):
        raise BackboneError(f"`{backbone.identifier}` has no weights to check; call load_weights(folder) first")
    results = []
    for number, check in enumerate(chosen, 1):
        if on_start is not None:
            on_start(check.name, number, len(chosen))
        results.append(_run(check, backbone))
    if only:  # nothing passes for not being looked at
        others = [check for check in named if not isinstance(check, Check)]
        why = Skip("a check of policies, and this is none, or its backbone alone")
        results += [Result.of(check.name, why, mend=check.mend, seconds=0.0) for check in others]
    return Report(
        model=backbone.identifier, facts=_facts(backbone), guesses=guesses_of(backbone), results=tuple(results)
    )


def chosen_checks(*, only: Collection[str] = (), skip: Collection[str] = ()) -> list[Check | PolicyCheck]:
    """The checks of both tables that are asked for; an unknown name offers the nearest."""
    known: dict[str, Check | PolicyCheck] = {**CHECKS, **OF_POLICIES}
    for name in (*only, *skip):
        if name not in known:
            raise UnknownNameError("check", name, known, hint=f"Known: {', '.join(known)}.")
    chosen = [check for name, check in known.items() if (not only or name in only) and name not in skip]
    if not chosen:  # nothing passes for not being looked at
        raise ConfigError("what is asked for and what is left out leave no check; name fewer to be left out")
    return chosen


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

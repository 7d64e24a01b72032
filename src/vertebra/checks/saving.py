"""What is written can be read: the same logits after a save and a load, and decoding settings that survive one.

The two are kept apart: settings that cannot be saved are swapped for plain ones while the weights are tried.
"""

from __future__ import annotations

import shutil
from typing import Any

import torch

from vertebra import log
from vertebra.backbone.registry import load_backbone
from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject, difference
from vertebra.errors import FingerprintError

_SMALL = 2 << 30
"""Bytes up to which both ways of loading are tried; above it the mapped one alone, which costs no memory."""
# What only sampling reads, and whatever else shipped files set against greedy decoding.
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "repetition_penalty",
)


def save_and_load(subject: Subject) -> Measure | Skip:
    """Write the backbone, read it back, run both."""
    backbone = subject.backbone
    if backbone.quantization is not None:
        return Skip("quantized weights are not written")
    size = sum(p.numel() * p.element_size() for p in backbone.parameters())
    free = shutil.disk_usage(subject.scratch).free
    if free < 1.2 * size:
        return Skip(f"needs {size / 1e9:.1f} GB on disk, {free / 1e9:.1f} are free (TMPDIR chooses the place)")
    ids = subject.ids(subject.inside)
    llm = backbone.llm
    with torch.no_grad():
        expected = backbone.eval()(input_ids=ids, use_cache=False).logits
    settings = llm.generation_config
    llm.generation_config = type(settings)(eos_token_id=settings.eos_token_id, pad_token_id=settings.pad_token_id)
    try:
        folder = backbone.save(subject.scratch / "saved")
    finally:
        llm.generation_config = settings
    ways = [True, False] if size <= _SMALL else [True]
    worst = 0.0
    faults = []
    for mapped in ways:
        try:
            loaded = _load(backbone, folder, mapped)
        except FingerprintError:
            return Skip("the tokenizer does not survive being written: see `fingerprint`")
        with torch.no_grad():
            worst = max(worst, difference(loaded.eval()(input_ids=ids, use_cache=False).logits, expected))
        faults += _changed(llm, loaded.llm)
        if loaded.num_rows != backbone.num_rows or loaded.pad_token_id != backbone.tokenizer.pad_token_id:
            faults.append(f"read back with {loaded.num_rows} rows and pad {loaded.pad_token_id}")
    how = "mapped, and with from_pretrained" if len(ways) == 2 else "mapped"
    message = f"difference of the logits, read back {how}; {size / 1e6:.1f} MB"
    # the same bits, as the faults tell; yet mapped memory lies elsewhere, and a kernel may add in another order
    return Measure(
        number=worst, relation="<=", bound=subject.tolerance / 100, message=message, faults=tuple(dict.fromkeys(faults))
    )


def _changed(llm: Any, loaded: Any) -> list[str]:
    """The tensors that did not come back bit by bit."""
    now = loaded.state_dict()
    changed = [
        name for name, tensor in llm.state_dict().items() if name not in now or not torch.equal(tensor, now[name])
    ]
    return [f"{len(changed)} tensors changed, {changed[0]} first"] if changed else []


def _load(backbone: Any, folder: Any, mapped: bool) -> Any:
    """The folder read back; what loading has to say of a temporary folder concerns nobody."""
    was_disabled, log.logger.disabled = log.logger.disabled, True
    try:
        return load_backbone(
            folder,
            llm_max_length=backbone.llm_max_length,
            inference_mode=mapped,
            weights=mapped,
            attn=backbone.attn,
            dtype=backbone.dtype,
            device=backbone.device,
        )
    finally:
        log.logger.disabled = was_disabled


def greedy(subject: Subject) -> Measure:
    """Decoding is greedy until set otherwise, and its settings can be written (LLaMA-2-chat's, as shipped, cannot)."""
    settings = subject.backbone.llm.generation_config
    plain = type(settings)()
    set_here = [name for name in _SAMPLING if getattr(settings, name, None) != getattr(plain, name, None)]
    faults = [f"{name} is {getattr(settings, name)}" for name in set_here]
    if settings.do_sample:
        faults.append("do_sample is on")
    try:
        settings.save_pretrained(subject.scratch)
        read = type(settings).from_pretrained(subject.scratch)
        if read.do_sample or read.eos_token_id != settings.eos_token_id:
            faults.append("they come back changed")
    except (ValueError, OSError) as error:
        faults.append(f"they cannot be written: {str(error).splitlines()[0]:.160}")
    return Measure(
        number=len(faults),
        relation="==",
        bound=0,
        message="decoding settings that are not greedy, or cannot be saved",
        faults=tuple(faults),
    )

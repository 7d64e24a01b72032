"""An adapter merged into its base: in fp32, in place, one base in memory, with the difference in logits reported.

    W ← W + scale · B A        one matrix at a time, then the cast, then a plain Hugging Face folder (a model folder,
                               where the base sees images)

Half-precision merges differ from what was trained; how much is measured on fixed probes, and above a bound the result
is not written. It does not know optimizers or data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.backbone.habits import PROBES
from vertebra.backbone.kernels import as_dtype
from vertebra.backbone.source import RECORD, find, left_by_run, read_json
from vertebra.errors import CheckpointError, ConfigError
from vertebra.folders import require_free, write_whole
from vertebra.sequence.batch import Batch
from vertebra.sequence.tokens import TokenSequence
from vertebra.tune.adapter import load_adapter
from vertebra.tune.folder import forget, put_back, replaced
from vertebra.tune.lora import Adapter
from vertebra.tune.parts import parts_of
from vertebra.tune.record import read_adapter

# Largest difference that is good, as a share of the largest logit.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """How far the merged model is from base and adapter side by side, on fixed probes."""

    matrices: int
    dtype: str
    largest_logit: float
    exact: float
    """Largest difference in fp32, where only the order of additions changed."""
    cast: float
    """Largest difference after the cast."""
    bound: float
    """What the difference after the cast may be."""

    @property
    def good(self) -> bool:
        return self.cast <= self.bound  # false for NaN too

    def __str__(self) -> str:
        verdict = "good" if self.good else "NOT good"
        return (
            f"{self.matrices} matrices merged. Largest logit difference on the probes: {self.exact:.2e} in fp32, "
            f"{self.cast:.2e} in {self.dtype} (largest logit {self.largest_logit:.3g}; bound {self.bound:.2e}): {verdict}"
        )


def merge(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    bound: float | None = None,
    overwrite: bool = False,
) -> MergeReport:
    """Merge an adapter into its base, and write the folder of a plain model. `dtype`: that of the base by default.

    bound: the largest difference allowed, as a share of the largest logit. Above it nothing is written.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "merging is one process's work; start it without torchrun, or every rank would write the folder"
        )
    out = Path(out)
    require_free(out, overwrite=overwrite, reads=[left_by_run(os.path.expanduser(base)), left_by_run(adapter)])
    model, loaded = load_adapter(base, adapter, dtype="float32")
    target = as_dtype(dtype) if dtype else _dtype_of(parts_of(model).backbone)
    model.eval()
    before = probe_logits(model)
    count = merge_in_place(model)
    exact = _difference(before, probe_logits(model))
    _cast(model, target)
    largest = max(float(rows.abs().max()) for rows in before)
    share = BOUNDS.get(target, 0.05) if bound is None else bound
    report = MergeReport(
        matrices=count,
        dtype=str(target).removeprefix("torch."),
        largest_logit=largest,
        exact=exact,
        cast=_difference(before, probe_logits(model)),
        bound=share * largest,
    )
    if not report.good:
        raise CheckpointError(f"{report}. Nothing was written; merge into fp32 (--dtype float32), or raise the bound")
    write_whole(out, lambda part: _fill(part, model, base, read_adapter(adapter).digest, loaded), replace=True)
    return report


@torch.no_grad()
def merge_in_place(model: Any) -> int:
    """Add every adapter to the matrix it sits on, and take the adapters out; returns how many matrices changed."""
    parts = parts_of(model)
    count = 0
    roots = (parts.lm, *parts.encoders.values(), *parts.projector.values())
    _require_places(roots)
    for root in roots:
        for name, module in replaced(root):
            put_back(root, name, _merged(root, module))
            count += 1
        forget(root)
    _settle_tie(parts.lm)
    return count


def _require_places(roots: Iterable[Any]) -> None:
    """Stop before anything is merged where a plain model has no place for what an adapter learned."""
    without = [
        name
        for root in roots
        for name, module in replaced(root)
        if any(getattr(module, "lora_bias", {}).values()) and getattr(module.get_base_layer(), "bias", None) is None
    ]
    if without:
        raise ConfigError(
            f"the adapter has biases of its own (lora_bias) on {len(without)} linears that have none, {without[0]} for one: "
            "a plain model cannot hold them. Run base and adapter side by side"
        )


def _merged(root: Any, module: Any) -> nn.Module:
    """The plain module that does what one of PEFT's does."""
    from vertebra.tune.biased import without_bias

    if hasattr(module, "modules_to_save"):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    layer = getattr(module, "token_adapter", module)
    plain = layer.get_base_layer()
    weight = getattr(plain, "weight", None)
    if layer is module and any(weight is table.weight for table in _tables(root) if table is not plain):
        plain.weight = nn.Parameter(plain.weight.detach().clone())  # an adapter of one of two tables that are tied
    if not _add(layer):
        without_bias(layer)
        layer.merge()
    return plain


def _tables(root: Any) -> list[Any]:
    """Embedding and head of a language model, without what PEFT put around them; none of another module."""
    if not hasattr(root, "get_output_embeddings"):
        return []
    found = [table for table in (root.get_input_embeddings(), root.get_output_embeddings()) if table is not None]
    wrapped = [getattr(table, "token_adapter", table) for table in found]
    return [table.get_base_layer() if hasattr(table, "get_base_layer") else table for table in wrapped]


def _settle_tie(lm: Any) -> None:
    """A config must not promise a tie that the merge undid: the next to load it would take one table for both."""
    tables = _tables(lm)
    if len(tables) < 2 or not getattr(lm.config, "tie_word_embeddings", False):
        return
    embedding, head = tables
    if torch.equal(embedding.weight, head.weight):
        head.weight = embedding.weight
    else:
        lm.config.tie_word_embeddings = False


def _add(layer: Any) -> bool:
    """The plain case by one product into the matrix itself; PEFT's own way makes two more matrices of its size."""
    weight: Any = getattr(layer.get_base_layer(), "weight", None)
    names = getattr(layer, "active_adapters", ())
    plain = type(layer).__name__ == "Linear" and isinstance(weight, nn.Parameter) and weight.is_floating_point()
    if not plain or any(layer.lora_variant.get(name) or layer.lora_bias.get(name) for name in names):
        return False
    for name in names:
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        scale = layer.scaling[name]
        a, b = a.to(weight.dtype), b.to(weight.dtype)
        if layer.fan_in_fan_out:
            weight.data.addmm_(a.T, b.T, alpha=scale)
        else:
            weight.data.addmm_(b, a, alpha=scale)
    return True


@torch.no_grad()
def probe_logits(model: Any) -> list[torch.Tensor]:
    """The logits of fixed probe texts, in fp32; of a multimodal model also of items that its encoders sample."""
    parts = parts_of(model)
    backbone: Any = parts.backbone
    found = []
    for text in PROBES:
        ids = backbone.tokenizer(text).input_ids[:64]
        logits = backbone(input_ids=torch.tensor([ids], device=backbone.device), use_cache=False).logits
        found.append(logits[0].float())
    if parts.outside:
        found.append(model(**_sampled(model), return_loss=False, logits_to_keep=0).logits[0].float())
    return found


def _sampled(model: Any) -> Batch:
    """One row with an item of every part, then words."""
    words = model.backbone.tokenizer(PROBES[0]).input_ids[:32]
    slots = [(number, i) for number, part in enumerate(model.parts.values()) for i in range(part.slots)]
    row = TokenSequence.of(
        [*[words[-1]] * len(slots), *words], slot=[*slots, *[(-1, -1)] * len(words)], segments=tuple(model.parts)
    )
    generator = torch.Generator().manual_seed(0)
    encoders = {name: part.encoder for name, part in model.parts.items() if hasattr(part, "encoder")}
    items = {name: encoder.sample(1, generator).numpy() for name, encoder in encoders.items()}
    return model.collate([row], [items], max_length=None)


def _difference(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    return float(torch.stack([(b - a).abs().max() for b, a in zip(before, after, strict=True)]).max())


def _dtype_of(backbone: Any) -> torch.dtype:
    """The type that the base is stored in."""
    source = find(backbone.hf_hub_path)
    text = source.config.get("text_config") or source.config
    stored = text.get("dtype") or text.get("torch_dtype") or source.config.get("dtype")
    return as_dtype(stored) if stored else torch.float32


def _cast(model: Any, dtype: torch.dtype) -> None:
    """Parameters alone: rotary tables in 16 bits would be off by a radian at position 2048."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    backbone: Any = parts_of(model).backbone
    backbone.llm.config.dtype = dtype


def _fill(part: Path, model: Any, base: str | Path, digest: str, loaded: Adapter) -> None:
    model.write(part)
    about = read_json(part / RECORD)
    earlier = read_json(Path(base) / RECORD).get("merged", []) if (Path(base) / RECORD).is_file() else []
    about |= {name: value for name, value in loaded.about.items() if name not in about}
    about["merged"] = [*earlier, digest]
    (part / RECORD).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")

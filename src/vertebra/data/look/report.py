"""`check_data`: what is in a data set as a model will see it, each number with a verdict.

A `fail` would stop or spoil a run (unusable rows, samples beyond the model's length, ids that are no row, a doubled
BOS, packing that leaks); a `note` is worth a look (duplicates, empty answers, unknown tokens). It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.encode.added import SpelledTokens
from vertebra.data.encode.pairs import PairEncoder
from vertebra.data.look.findings import SHOWN, Finding, counted, of_added, of_ids, of_labels
from vertebra.data.look.setup import Setup
from vertebra.data.read.conversations import Conversation
from vertebra.data.read.formats import Pair, Sample, Text
from vertebra.data.read.labels import Labels, spelled
from vertebra.data.read.progress import progress
from vertebra.data.read.rows import Fault, Row, digest
from vertebra.data.samples.samples import Samples
from vertebra.errors import DataError
from vertebra.prompt.guard import guarded_tokens


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Everything that was found."""

    source: str
    model: str
    format: str
    kind: str
    findings: tuple[Finding, ...]
    histogram: tuple[tuple[int, int, int], ...]
    """(from, to, samples) of the lengths."""

    @property
    def passed(self) -> bool:
        return all(finding.status != "fail" for finding in self.findings)

    def finding(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "model": self.model,
            "format": self.format,
            "kind": self.kind,
            "passed": self.passed,
            "findings": [
                {"name": f.name, "status": f.status, "value": f.value, "message": f.message, "places": list(f.places)}
                for f in self.findings
            ],
            "lengths": [{"from": low, "to": high, "samples": count} for low, high, count in self.histogram],
        }


@dataclass
class _Rows:
    """What the rows themselves say, before any tokenizer."""

    good: int = 0
    faults: list[Fault] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    images: int = 0
    broken: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)
    """The places of each label."""
    blank: list[str] = field(default_factory=list)
    spelled: SpelledTokens = field(default_factory=lambda: SpelledTokens(()))
    _seen: dict[str, str] = field(default_factory=dict)

    def see(self, place: str, sample: Sample, labels: Labels | None) -> None:
        """A row that can be used."""
        self.good += 1
        self.spelled.see(sample)
        first = self._seen.setdefault(digest(sample), place)
        if first != place:
            self.doubles.append(f"{place} is {first} again")
        self.empty += [place for answer in _answers(sample) if not answer.strip()]
        if isinstance(sample, Pair):
            if labels is not None:
                number = labels.number(sample.label)
                name = spelled(sample.label) if labels.names is None else labels.names[int(number)]
                self.labels.setdefault(name, []).append(place)
            if not all(text is None or text.strip() for text in (sample.first, sample.second)):
                self.blank.append(place)
        if isinstance(sample, Conversation):
            self.images += len(sample.images)
            self.broken += [f"{place}: {why}" for image in sample.images if (why := _unreadable(image))]


def check_data(setup: Setup) -> DataReport:
    """Hold a data set against a model. Load the set-up with `on_bad="skip"`, so that nothing stops it."""
    rows = _scanned(setup)
    lengths = setup.table.lengths
    findings = [
        counted(
            "rows", rows.faults, rows.good + len(rows.faults), "unusable", "fail", [str(fault) for fault in rows.faults]
        ),
        Finding("samples", "pass", f"{len(setup.samples):,}", f"{setup.table.tokens:,} positions in all"),
        _lengths(lengths),
        _too_long(setup),
        _supervised(setup),
        counted("duplicates", rows.doubles, rows.good, "repeated", "note", rows.doubles),
        counted("empty answers", rows.empty, rows.good, "say nothing", "note", rows.empty),
        *of_ids(setup),
        *of_added(setup, rows.spelled),
    ]
    if rows.images:
        findings.append(counted("images", rows.broken, rows.images, "unreadable", "fail", rows.broken))
    if setup.labels is not None:
        findings.append(counted("empty sentences", rows.blank, rows.good, "say nothing", "note", rows.blank))
        findings.append(of_labels(setup.labels, rows.labels))
    return DataReport(
        source=setup.name,
        model=setup.model.name,
        format=setup.format,
        kind=setup.kind,
        findings=tuple(findings),
        histogram=histogram(lengths),
    )


def histogram(lengths: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Samples by length, each class half as long again as the one before."""
    edges = [0]
    while edges[-1] <= int(lengths.max(initial=0)):
        edges.append(max(edges[-1] + 8, int(edges[-1] * 1.5)))
    counts, _ = np.histogram(lengths, edges)
    return tuple((low, high - 1, int(count)) for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True))


def _scanned(setup: Setup) -> _Rows:
    """One walk over the rows: faults (those of reading and those of encoding), doubles, empty answers, images."""
    found = _Rows(spelled=SpelledTokens(guarded_tokens(setup.model.tokenizer.added_tokens_decoder.values())))
    unusable = {fault.where: fault for fault in setup.table.faults}
    for source, reader in setup.sources:
        with progress(f"checking {source.name}", source.units()) as advance:
            for row in source.rows():
                advance(1)
                sample = reader(row) if isinstance(row, Row) else row
                if isinstance(sample, Fault) or row.where in unusable:
                    found.faults.append(unusable.get(row.where) or sample)  # type: ignore[arg-type]
                elif sample is not None:
                    found.see(row.where, sample, setup.labels)
    return found


def _answers(sample: Sample) -> Iterator[str]:
    """What is to be learnt: the answers of a conversation, the text of a text."""
    if isinstance(sample, Text):
        yield sample.text
    elif isinstance(sample, Conversation):
        for message in sample.messages:
            content = message["content"]
            if message["role"] == "assistant":
                yield content if isinstance(content, str) else "".join(part.get("text", "…") for part in content)


def _unreadable(image: Any) -> str | None:
    """Why an image cannot be read, if it cannot: it is decoded whole, for a broken end shows only there."""
    from vertebra.model.encoders.images import read_image

    try:
        given = Path(image).read_bytes() if isinstance(image, str) else image
        read_image(given, ground=(255, 255, 255)).load()
    except (DataError, OSError) as error:
        return f"{image}: {error}"
    return None


def _lengths(lengths: np.ndarray) -> Finding:
    median, high = np.percentile(lengths, [50, 95])
    message = f"median {median:.0f}, mean {lengths.mean():.0f}, 95 % up to {high:.0f}"
    return Finding("lengths", "pass", f"{lengths.min()} to {lengths.max()}", message)


def _too_long(setup: Setup) -> Finding:
    """Text is cut into blocks and pairs are cut to fit; only whole samples can be too long."""
    if not setup.whole:
        if not isinstance(setup.encoder, PairEncoder):
            return Finding("too long", "pass", "0", f"cut into blocks of {setup.limit} positions, nothing is lost")
        full = int((setup.table.lengths >= setup.limit).sum())
        message = f"fill the {setup.limit} positions that the model reads: the longer sentence of each was cut to fit"
        return Finding("too long", "note" if full else "pass", f"{full:,}", message if full else "none cut to fit")
    over = np.flatnonzero(setup.table.lengths > setup.limit)
    places = [f"{setup.table.where(int(i))} has {setup.table.lengths[i]}" for i in over[:SHOWN]]
    return counted("too long", over, len(setup.table), f"longer than {setup.limit}", "fail", places)


def _supervised(setup: Setup) -> Finding:
    samples = setup.samples
    trained, total = 0.0, 0
    for index in _some(samples):
        weight = samples.vectors(index).get("weight", 1.0)
        total += int(samples.lengths[index])
        trained += float((np.broadcast_to(weight, samples.lengths[index]) > 0).sum())
    if isinstance(setup.encoder, PairEncoder):
        return Finding("supervised", "pass", "labels", "each sample has one label, no token is predicted")
    share = trained / max(total, 1)
    return Finding("supervised", "pass" if share else "fail", f"{share:.1%}", "of the positions count in the loss")


def _some(samples: Samples, count: int = 2000) -> list[int]:
    """All samples, or an even choice where there are many."""
    return np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)).tolist()


def check_packing(setup: Setup, backbone: Any) -> Finding:
    """Samples of this data packed in one row have the logits that each has alone, on this model."""
    import torch

    from vertebra.data.loaders.collate import Collator
    from vertebra.sequence.masks import plan_attention

    shortest = np.argsort(setup.table.lengths, kind="stable")[:3].tolist()
    cut = [{k: v[:48] for k, v in setup.table.vectors(i).items() if k in ("ids", "weight")} for i in shortest]
    batch = Collator(setup.model.pad_id, multiple_of=1)([cut]).to(backbone.device)
    made = plan_attention(batch, backbone.attention_facts, dtype=backbone.dtype)
    backbone.eval()
    with torch.no_grad():
        together = backbone(
            input_ids=batch["input_ids"],
            attention_mask=made.attention_mask,
            position_ids=made.position_ids,
            use_cache=made.use_cache,
        ).logits[0]
        worst, at = 0.0, 0
        for vectors in cut:
            ids = torch.as_tensor(vectors["ids"].astype(np.int64), device=backbone.device)[None]
            alone = backbone(input_ids=ids, use_cache=False).logits[0]
            worst = max(worst, float((together[at : at + len(alone)] - alone).abs().max()))
            at += len(alone)
    bound = 1e-4 if backbone.dtype in (torch.float32, torch.float64) else 0.1
    message = f"largest difference of logits, {len(cut)} samples packed and alone; must be ≤ {bound:g}"
    return Finding("packed = unpacked", "pass" if worst <= bound else "fail", f"{worst:.1e}", message)

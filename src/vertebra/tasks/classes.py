"""The classes of the sentence pairs that a task reads: declared, or inferred where nothing about the labels is doubtful."""

from __future__ import annotations

from vertebra.data.read.formats import Reader
from vertebra.data.read.labels import Labels
from vertebra.data.reading import Reading
from vertebra.errors import ConfigError, DataError
from vertebra.tasks.config import DataConfig


def classes_of(data: DataConfig, format: str | None = None) -> Labels | None:
    """The classes to be learned; None where there are no pairs. What may be a slip is refused with its counts."""
    labels = labels_of(data, format)
    if labels is None:
        return None
    if labels.names is None:
        raise DataError(
            f"{data.named}: the labels are numbers of a regression, and kind `{data.kind}` learns classes. Make classes of "
            "them, and declare these: data.labels=[…]"
        )
    counts = labels.counts
    outliers = labels.outliers(counts)
    if outliers or len(labels) < 2:
        listed = ", ".join(f"{name} {counts[name]:,}" for name in labels.names) or "none"
        what = f"{', '.join(outliers)} may be a slip" if outliers else "a classifier needs two classes or more"
        raise DataError(
            f"{data.named}: inferred labels with their rows: {listed}; {what}. Mend the rows (`vertebra data check` "
            "names them), or declare the classes: data.labels=[…]"
        )
    return labels


def labels_of(data: DataConfig, format: str | None = None) -> Labels | None:
    """The labels as they are, slips too. `format`: what all rows are taken for."""
    pairs = [part for part in data.single().values() if _spells_pairs(part, format)]
    if not pairs:
        if data.labels:
            raise ConfigError("labels are of pairs, and none are read here; leave data.labels out")
        return None
    if data.labels:
        return Labels([str(name) for name in data.labels])
    if len(pairs) > 1:
        raise ConfigError("the classes of several readings are declared: data.labels=[…]")
    return Labels.of(pairs[0].source(), Reader("pairs", columns=pairs[0].columns))


def _spells_pairs(part: Reading, format: str | None) -> bool:
    found = part.settled(format=format).format
    return found is not None and found.name == "pairs"

"""One shard of rows answered: in batches of neighbours, so that an answer depends on its shard and on nobody who answers it.

A row that cannot be answered (damaged, too long, an image that is not there) is an entry with its error, and the others of its
batch are answered; so a shard has exactly one entry a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.bulk.questions import BulkQuestion, DocumentRow, asked_of, id_of
from vertebra.bulk.settings import BulkSettings
from vertebra.data.read.rows import Fault, Row, Source
from vertebra.decode.asking import Asker
from vertebra.decode.call import generate
from vertebra.decode.settings import Question
from vertebra.documents.extract import ask, extract
from vertebra.errors import VertebraError
from vertebra.model.model import Model


@dataclass(frozen=True)
class Shard:
    """Neighbouring units of a source."""

    number: int
    start: int
    count: int


def shards(units: int, size: int) -> list[Shard]:
    """All units, in pieces of `size`."""
    return [Shard(at, start, min(size, units - start)) for at, start in enumerate(range(0, units, size))]


class Answerer:
    """One model that answers shards."""

    def __init__(self, model: Model, source: Source, settings: BulkSettings) -> None:
        self.model, self.source, self.settings = model, source, settings

    def answer(self, shard: Shard) -> list[dict[str, Any]]:
        """An entry for each row: `row` (its number), `id` where it has one, and `answer` or `error`."""
        made: list[dict[str, Any]] = []
        asked: list[tuple[dict[str, Any], BulkQuestion]] = []
        for entry, what in self._read(shard):
            made.append(entry)
            if isinstance(what, BulkQuestion):
                asked.append((entry, what))
            elif isinstance(what, DocumentRow):
                self._extract(entry, what)
            else:
                entry["error"] = what
        for at in range(0, len(asked), self.settings.batch):
            self._fill(asked[at : at + self.settings.batch])
        return made

    def _read(self, shard: Shard) -> Iterator[tuple[dict[str, Any], BulkQuestion | DocumentRow | str]]:
        for number, raw in enumerate(self.source.raw(shard.start), shard.start):
            if number >= shard.start + shard.count:
                return
            row = self.source.parse(raw)
            if row is None:  # a blank line
                continue
            entry: dict[str, Any] = {"row": number}
            if isinstance(row, Fault):
                yield entry, str(row)
                continue
            called = id_of(row)
            if called is not None:
                entry["id"] = called
            yield entry, self._asked(row)

    def _asked(self, row: Row) -> BulkQuestion | DocumentRow | str:
        try:
            return asked_of(row, self.settings.system)
        except VertebraError as error:
            return f"{row.where}: {error}"

    def _extract(self, entry: dict[str, Any], what: DocumentRow) -> None:
        """The values that a document has, with where they stand."""
        try:
            options = self.settings.of_documents()
            if what.schema is not None:
                made = extract(self.model, what.document, what.schema, **options)
            else:
                made = ask(self.model, what.document, what.questions, **options)
        except VertebraError as error:
            entry["error"] = str(error)
            return
        entry |= {"answer": made.values, **made.to_dict()}

    def _fill(self, asked: Sequence[tuple[dict[str, Any], BulkQuestion]]) -> None:
        """The answers of one batch; where it fails, those of each row alone."""
        try:
            made = self._decoded([what for _, what in asked], [entry["row"] for entry, _ in asked])
        except VertebraError as error:
            if len(asked) == 1:
                asked[0][0]["error"] = str(error)
                return
            for one in asked:
                self._fill([one])
            return
        for (entry, _), more in zip(asked, made, strict=True):
            entry |= more

    def _decoded(self, asked: Sequence[BulkQuestion], rows: Sequence[int]) -> list[dict[str, Any]]:
        sequences, features = [], []
        for one in asked:
            asker = Asker(self.model, Question(images=tuple(one.images)) if one.images else None)
            sequences.append(asker.open(asker.turns(one.turns)))
            features.append(self.model.prepare({"image": one.images}) if one.images else {})
        options = dict(self.settings.decoding)
        if options.get("seed") is not None:  # of the row alone: neighbours that ask the same draw other numbers
            options["seed"] = [options["seed"] + row for row in rows]
        batch = self.model.collate(sequences, features, side="left")
        result = generate(self.model, batch, **options)
        return [
            {"answer": text, "stop_reason": reason, "tokens": len(ids)}
            for text, reason, ids in zip(result.text, result.stop_reason, result.tokens, strict=True)
        ]

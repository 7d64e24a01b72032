"""`prepare`: a source, read and encoded once, as a table: from the cache, by several processes, or in memory.

    source ──raw──► spans of units ──parse──► rows ──format──► samples ──encoder──► chunks ──► Table
                    one span at a time, in any process                          cached by content

The scan always goes to the end of the data; its faults are then reported together, or left out by choice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from vertebra import log
from vertebra.backbone.tiny.write import cache_folder
from vertebra.data.encode.cache import PIPELINE, Cache, mapped, read_entry
from vertebra.data.encode.encoders import Encoder, PlacedSample
from vertebra.data.read.conversations import MISSING_IMAGE, Conversation
from vertebra.data.read.formats import Pair, Reader, Text
from vertebra.data.read.open import open_source
from vertebra.data.read.progress import on_terminal, progress
from vertebra.data.read.rows import Fault, Faults, OnBad, Raw, Row, Source, digest
from vertebra.data.samples.table import RowChunk, Table, hash_of
from vertebra.errors import ConfigError, DataError, MissingPartError

SPAN = 1000
"""Units that one call encodes."""

HELD = 4_000_000
"""Characters that are held at a time, whatever the number of rows."""


def prepare(
    data: Any,
    encoder: Encoder,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: str | Path | None = None,
    keep: Callable[[str], bool] | None = None,
    cache: bool | str | Path = True,
    num_proc: int = 1,
    on_bad: OnBad = "fail",
    show_progress: bool = True,
    **opening: Any,
) -> Table:
    """Read and encode all of `data`.

    data: anything that `open_source` takes, with its options (`split=`, `pattern=`, `text_unit=` …) in `opening`.
    format, columns, images, keep: what a row means, and which texts to take; see `formats.Reader`. A `keep` of your
    own is cached only if it says what it is by an attribute `key`.
    cache: True for the user's cache folder, a folder, or False. What cannot be hashed (an iterator) is not cached.
    on_bad: `fail` with the list of all unusable rows at the end of the scan, or `skip` them with a warning.
    """
    if num_proc < 1:
        raise ConfigError(f"num_proc is {num_proc}; expected 1 or more processes")
    source = open_source(data, **opening)
    faults = Faults(on_bad)
    scan = Scan(source, encoder, Reader(format, columns=columns, images=images, keep=keep))
    content = source.fingerprint() if keep is None or hasattr(keep, "key") else None
    meta = {
        "encoder": encoder.name,
        "options": dict(encoder.options()),
        "tokenizer": encoder.tokens.fingerprint,
        "data": content,
        "source": source.name,
        "pipeline": PIPELINE,
    }
    key = digest(PIPELINE, content, encoder.name, sorted(encoder.options().items()), meta["tokenizer"], format)
    key = digest(key, sorted((columns or {}).items()), getattr(keep, "key", None), *_image_folders(scan, images))
    meta |= {"fingerprint": key, "labels": source.label_names()}
    folder = _cache(cache, num_proc) if content is not None else None
    entry = None if folder is None else _found(folder, key)
    if folder is None or (entry is None and not _writable(folder, asked=cache is not True)):
        chunks = _held(scan, known=content is not None, num_proc=num_proc, show=show_progress)
        if content is None:  # what could not be known before is known now
            meta["fingerprint"] = digest(key, *[hash_of(chunk) for chunk in chunks])
        table = Table(chunks, meta=meta)
    else:
        if entry is None:
            place = _made(scan, folder, key, num_proc=num_proc, show=show_progress)
            entry = place, folder.read(place)
        place, chunks = entry
        table = Table(chunks, meta=meta)
        table.opened_by = (read_entry, (place,))
    for fault in table.faults:
        faults.add(fault)
    faults.settle(source.name, good=len(table))
    if not len(table):
        listed = f"\n{faults.report(source.name, good=0)}" if faults.count else ""
        raise DataError(f"{source.name} holds no sample: it is empty{', bad rows apart' if listed else ''}{listed}")
    return table


class Scan:
    """Encodes spans of a source's units. It may be sent to another process; its place in the source stays behind."""

    def __init__(self, source: Source, encoder: Encoder, reader: Reader) -> None:
        self.source, self.encoder, self.reader = source, encoder, reader
        self.tally: Path | None = None
        """A file to which 8 bytes are added for each row: how other processes report what they have done."""
        self._walk: Iterator[Raw] | None = None
        self._at = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_walk": None, "_at": -1}

    def encode(self, start: int, stop: int) -> Iterator[RowChunk]:
        """Units `start:stop`, in one chunk or, where they are long, in several."""
        batch: list[PlacedSample | Fault] = []
        held = 0
        for one in self._samples(start, stop):
            batch.append(one)
            held += _size(one)
            if held > HELD:
                yield self._encoded(batch)
                batch, held = [], 0
        if batch:
            yield self._encoded(batch)

    def whole(self) -> Iterator[RowChunk]:
        """Everything, for a source whose size is not known."""
        start = 0
        while True:
            yield from self.encode(start, start + SPAN)
            if self._at < start + SPAN:
                return
            start += SPAN

    def _encoded(self, batch: list[PlacedSample | Fault]) -> RowChunk:
        chunk = self.encoder.encode(batch)
        if self.tally is not None:
            with open(self.tally, "ab", buffering=0) as file:
                file.write(b"\0" * len(batch))
        return chunk

    def _samples(self, start: int, stop: int) -> Iterator[PlacedSample | Fault]:
        if self._walk is None or self._at != start:
            self._walk, self._at = self.source.raw(start), start
        for raw in islice(self._walk, stop - start):
            self._at += 1
            row = self.source.parse(raw)
            if isinstance(row, Row):
                sample = self.reader(row)
                if sample is not None:
                    yield sample if isinstance(sample, Fault) else PlacedSample(row.file, row.line, sample, row.item)
            elif row is not None:
                yield row


def _held(scan: Scan, *, known: bool, num_proc: int, show: bool) -> list[RowChunk]:
    """Everything in memory, by this process."""
    name = scan.source.name
    if num_proc > 1:
        log.warn_once(f"{name} is not cached, so one process reads it; num_proc={num_proc} has no effect")
    chunks = []
    with progress(f"tokenizing {name}", scan.source.units() if known else None, show=show) as advance:
        for chunk in scan.whole():
            chunks.append(chunk)
            advance(len(chunk))
    return chunks


def _image_folders(scan: Scan, images: str | Path | None) -> list[str]:
    """Where paths of images lead, for encoders that take some: the same file elsewhere has other images beside it."""
    if images is not None:
        return [os.path.abspath(images)]
    if not scan.encoder.options().get("sizes"):
        return []
    return sorted({os.path.dirname(os.path.abspath(part.name)) for part in scan.source.parts()})


def _found(folder: Cache, key: str) -> tuple[Path, list[RowChunk]] | None:
    """The entry and its chunks, unless it lacked images when it was made: they may be there by now."""
    entry = folder.find(key)
    if entry is None:
        return None
    chunks = folder.read(entry)
    faults = (message for chunk in chunks for message in chunk.faults.values())
    if any(message.startswith(MISSING_IMAGE) for message in faults):
        folder.drop(entry)
        return None
    return entry, chunks


def _made(scan: Scan, folder: Cache, key: str, *, num_proc: int, show: bool) -> Path:
    """A new entry of the cache."""
    scan.reader.settle(scan.source)
    units = scan.source.units() or 0
    spans = [(start, min(start + SPAN, units)) for start in range(0, units, SPAN)]
    with folder.filling(key) as part:
        scan.tally = part / "tally"
        with _watched(scan.tally, f"tokenizing {scan.source.name}", units, show=show):
            if spans:
                mapped(spans, scan.encode, scan.encoder.columns, folder=part, num_proc=min(num_proc, len(spans)))
        scan.tally.unlink(missing_ok=True)
    return folder.folder / key


def _cache(cache: bool | str | Path, num_proc: int) -> Cache | None:
    """The cache that was asked for. The user's own folder is a convenience: without it the work is done in memory."""
    if cache is False:
        return None
    if cache is not True:
        return Cache(cache)
    try:
        import datasets  # noqa: F401
    except ImportError:
        if num_proc > 1:
            raise MissingPartError(f"num_proc={num_proc}", "datasets", "train") from None
        log.warn_once("tokenized data is not cached, since `datasets` is not installed: pip install 'vertebra[train]'")
        return None
    return Cache(cache_folder() / "data")


def _writable(folder: Cache, *, asked: bool) -> bool:
    """Whether an entry can be made. A folder that was asked for must be writable."""
    try:
        folder.check_writable()
    except DataError as error:
        if asked:
            raise
        log.warn(f"working in memory: {error}")
        return False
    return True


@contextmanager
def _watched(tally: Path, what: str, total: int, *, show: bool) -> Iterator[None]:
    """A bar that follows the size of the tally, whichever process adds to it."""
    if not (show and on_terminal()):
        yield  # no thread either: processes are about to be forked
        return
    done = threading.Event()
    with progress(what, total, show=show) as advance:

        def follow() -> None:
            seen = 0
            ended = False
            while not ended:
                ended = done.wait(0.2)
                size = os.path.getsize(tally) if tally.exists() else seen
                advance(size - seen)
                seen = size

        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _size(one: PlacedSample | Fault) -> int:
    if isinstance(one, Fault):
        return len(one.message)
    sample = one.sample
    if isinstance(sample, Text):
        return len(sample.text)
    if isinstance(sample, Conversation):
        return sum(len(str(message["content"])) for message in sample.messages)
    if isinstance(sample, Pair):
        return len(sample.first) + len(sample.second or "")
    return len(str(sample))

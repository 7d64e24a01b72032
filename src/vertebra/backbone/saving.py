"""A backbone as a folder: written whole or not at all, and read back by mapping.

config.json  generation_config.json  model*.safetensors   a plain Hugging Face folder
tokenizer files
vertebra.json                                              id, family, builder, growths, fingerprint, versions
displaced.safetensors                                      spare rows that new tokens took over, where there were any
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vertebra import compat
from vertebra.backbone.growth import KEEP, Growth, replay
from vertebra.backbone.habits import check_fingerprint, fingerprint_record
from vertebra.backbone.matrices import matrices, num_rows, resize
from vertebra.backbone.source import RECORD, CheckpointSource, find, read_json, weights_folder
from vertebra.backbone.structure import converted_by_library
from vertebra.backbone.tokenizers import save_tokenizer
from vertebra.backbone.vocabulary import restricted_parameters
from vertebra.backbone.weights import assign, mapped_tensors, missing_from, spelled_for
from vertebra.errors import CheckpointError, ConfigError
from vertebra.reading import reading

FORMAT = 1
DISPLACED = "displaced.safetensors"


def write_backbone(backbone: Any, part: Path) -> None:
    """The files of a backbone's folder into one that exists."""
    with compat.bars_only_in_terminals():
        backbone.llm.save_pretrained(part)
    save_vocabulary(backbone, part)
    (part / RECORD).write_text(json.dumps(record(backbone), indent=1, ensure_ascii=False), encoding="utf-8")


def follow_mode(llm: Any, *, runs: bool) -> None:
    """The cache on to run and off to train, in the config too, where code reads it that is not ours.

    Only in memory: whoever writes the model, this package or `llm.save_pretrained`, writes a config with the cache on. One
    that was off stayed off in every model that was made of such a folder.
    """
    llm.config.use_cache = runs
    llm.save_pretrained = partial(_save_with_cache, llm)


def _save_with_cache(llm: Any, *args: Any, **options: Any) -> Any:
    with _cache_on(llm.config):
        return type(llm).save_pretrained(llm, *args, **options)


@contextmanager
def _cache_on(config: Any) -> Iterator[None]:
    before = config.use_cache
    config.use_cache = True
    try:
        yield
    finally:
        config.use_cache = before


def config_to_save(llm: Any) -> dict[str, Any]:
    """The config as it is written: without what only training sets."""
    with _cache_on(llm.config):
        return llm.config.to_dict()


def save_vocabulary(backbone: Any, part: Path) -> None:
    """The tokenizer, and the spare rows that its added tokens took over."""
    save_tokenizer(backbone.tokenizer, part)
    displaced = {
        f"{number}.{name}": rows.contiguous()
        for number, growth in enumerate(backbone.growths)
        for name, rows in growth.displaced.items()
    }
    if displaced:
        save_file(displaced, part / DISPLACED)


def record(backbone: Any) -> dict[str, Any]:
    """What `vertebra.json` says of a backbone."""
    return {
        "format": FORMAT,
        "backbone": {
            "id": backbone.identifier,
            "family": backbone.llm_family,
            "llm_cls": type(backbone.llm).__name__,
            "prompt_builder": _builder(backbone),
            "llm_max_length": backbone.llm_max_length,
            "growths": [growth.to_json() for growth in backbone.growths],
            "only_new_rows": bool(restricted_parameters(backbone)),
            "fingerprint": fingerprint_record(backbone.tokenizer),
        },
        "versions": {name: version(name) for name in ("vertebra", "torch", "transformers", "tokenizers")},
    }


def _builder(backbone: Any) -> str | None:
    try:
        return backbone.builder
    except ConfigError:  # an id that names no format: the folder then names none either
        return None


def read_record(source: CheckpointSource) -> dict[str, Any]:
    """What a folder's record says of the backbone, checked; nothing for a folder that we did not write."""
    recorded = source.record.get("backbone", {})
    if not recorded:
        return {}
    made = source.record.get("format", FORMAT)
    if not isinstance(made, int) or made > FORMAT:
        raise CheckpointError(
            f"`{source.name}` has the format {made}; this version reads up to {FORMAT}. Upgrade vertebra"
        )
    absent = [name for name in ("family", "fingerprint", "growths") if name not in recorded]
    if absent:
        raise CheckpointError(f"{RECORD} of `{source.name}` lacks {', '.join(absent)}; save the model again")
    wrong = [name for name, fits in _RECORDED.items() if not fits(recorded.get(name))]
    if wrong:
        raise CheckpointError(
            f"{RECORD} of `{source.name}` is damaged: {', '.join(f'{n} is {recorded.get(n)!r:.60}' for n in wrong)}; save "
            "the model again"
        )
    return recorded


def _is_print(value: Any) -> bool:
    """Whether this is a fingerprint: a hash, and the probes behind it."""
    return isinstance(value, dict) and isinstance(value.get("hash"), str) and isinstance(value.get("probes", {}), dict)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


# What the entries of a record must be: those that are read before anything checks them.
_RECORDED: dict[str, Callable[[Any], bool]] = {
    "id": _is_text,
    "family": lambda value: isinstance(value, str),
    "prompt_builder": _is_text,
    "growths": lambda value: isinstance(value, list),
    "fingerprint": _is_print,
}


def recorded_growths(recorded: dict[str, Any], source: CheckpointSource, token: str | None = None) -> list[Growth]:
    """The growths of a record, with the rows that they displaced."""
    with reading(f"a growth in {RECORD} of `{source.name}` is damaged"):
        growths = [Growth.from_json(entry) for entry in recorded["growths"]]
        wrong = [growth for growth in growths if not _is_growth(growth)]
    if wrong:
        raise CheckpointError(f"a growth in {RECORD} of `{source.name}` is damaged ({wrong[0]!r:.200}); save it again")
    load_displaced(growths, source, token)
    return growths


def _is_growth(growth: Growth) -> bool:
    """Whether the entries are of their types, and the sizes such as follow from each other."""
    ids = (*growth.ids, *(i for ids in growth.like for i in ids))
    counts = (growth.seed, growth.vocab_before, growth.rows_before, growth.rows_after, *ids)
    return (
        all(type(count) is int and 0 <= count < 2**31 for count in counts)
        and all(isinstance(token, str) for token in growth.tokens)
        and len(growth.tokens) == len(growth.ids) == len(set(growth.ids)) > 0
        # a pad that keeps its spare row may drop the spare rows behind it
        and (growth.rows_before <= growth.rows_after or (growth.is_pad and growth.init == KEEP))
        and max(growth.ids) < growth.rows_after
    )


def load_displaced(growths: list[Growth], source: CheckpointSource, token: str | None = None) -> None:
    """Give growths that were read from a record the rows that they displaced."""
    if not any(growth.spare for growth in growths):
        return
    file = source.file(DISPLACED, token=token)
    if file is None:
        return
    with reading(f"`{file}` does not hold the rows that {RECORD} lists", "save the model again"):
        for key, rows in load_file(file).items():
            number, _, name = key.partition(".")
            growths[int(number)].displaced[name] = rows


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` found and did."""

    folder: str
    rows: str
    """`base`: without the tokens that were added since; `grown`: with them."""
    replayed: int
    """How many growths were replayed on base rows."""
    rows_in_file: int
    tensors: int
    unused: int
    """Tensors of the file that belong to something else: a projector, a vision tower."""
    seconds: float

    def __str__(self) -> str:
        how = f", growth replayed ({self.replayed} ×)" if self.replayed else ", taken as they are"
        rows = f"{self.rows_in_file} {self.rows} rows{how}"
        aside = f"; {self.unused} tensors are of other parts" if self.unused else ""
        return f"{self.folder}: {self.tensors} tensors mapped in {self.seconds:.2f} s; {rows}{aside}"


def load_weights(backbone: Any, where: str | Path, *, token: str | None = None, as_stored: bool = False) -> LoadReport:
    """Map a folder's tensors into the structure, with base rows or grown rows, whichever it holds. `as_stored`: only the
    tables are cast to the structure's type, so that nothing else is read yet."""
    start = time.perf_counter()
    source = find(where, token=token)
    llm, growths = backbone.llm, backbone.growths
    recorded = read_record(source)
    if recorded:
        check_fingerprint(backbone.tokenizer, recorded["fingerprint"], source.name)
    tensors, unused = _tensors(llm, weights_folder(source, token=token))
    name = next(n for n, p in llm.named_parameters() if p is llm.get_input_embeddings().weight)
    if name not in tensors:
        raise CheckpointError(
            f"`{source.name}` holds no tensor `{name}`; it is not a checkpoint of {type(llm).__name__}"
        )
    rows = int(tensors[name].shape[0])
    used = len(backbone.tokenizer)
    pending = _pending(growths, rows, num_rows(llm), source, token, is_ours=bool(recorded), used=used)
    rows_before, values_before = num_rows(llm), [(m.parameter, m.parameter.data) for m in matrices(llm)]
    dtype = llm.dtype
    resize(llm, rows)
    try:
        assign(llm, tensors, dtype=None if as_stored else dtype, where=source.name)
    except CheckpointError:
        resize(llm, rows_before)
        for parameter, values in values_before:  # of weights that were there before; cutting rows off lost some
            parameter.data = values
        raise
    for matrix in matrices(llm) if as_stored else ():
        matrix.parameter.data = matrix.parameter.data.to(dtype)
    for growth in pending:
        replay(llm, growth)
    if recorded and not pending:
        load_displaced(growths, source, token)
    kind = "grown" if growths and len(pending) < len(growths) else "base"
    return LoadReport(source.name, kind, len(pending), rows, len(tensors), unused, time.perf_counter() - start)


def _tensors(llm: Any, folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Mapped tensors under the model's names, and how many others there are. Where transformers itself renames or
    reshapes what is saved (GPT-NeoX's head), its loader does it, at the cost of a copy."""
    mapped = mapped_tensors(folder)
    tensors = spelled_for(llm, mapped)
    if len(tensors) < len(mapped) and missing_from(llm, tensors):
        converted = converted_by_library(llm, folder)
        if converted is not None:
            return converted, 0
    return tensors, len(mapped) - len(tensors)


def _pending(
    growths: list[Growth],
    rows: int,
    grown: int,
    source: CheckpointSource,
    token: str | None,
    *,
    is_ours: bool,
    used: int,
) -> list[Growth]:
    """The growths that the file's rows have not seen; an error where the number of rows fits none of them.

    `used`: how many rows the tokens need, all growths counted.
    """
    # a large file, which only growths and rows that do not fit have use for
    known = _tokens_of(source, token) if growths or rows != grown else None
    for done in range(len(growths), -1, -1):
        expected = growths[done].rows_before if done < len(growths) else grown
        # a growth into spare rows leaves their number alone: the folder's own tokenizer tells whether it happened
        present = is_ours or done == 0 or known is None or set(growths[done - 1].tokens) <= known
        if rows == expected and present:
            return growths[done:]
    # resized to their tokens by other tools, and so without the spare rows of the base (Qwen, Phi, OPT)
    added = {token for growth in growths for token in growth.tokens}
    if used <= rows < grown and (known is None or added <= known):
        return []
    fits = sorted({grown, *(growth.rows_before for growth in growths)})
    raise CheckpointError(
        f"`{source.name}` has {rows} embedding rows; this model takes {' or '.join(map(str, fits))}, or fewer that hold all of "
        f"its {used} tokens"
    )


def _tokens_of(source: CheckpointSource, token: str | None) -> set[str] | None:
    """Added tokens of the tokenizer beside some weights; None where there is none to ask."""
    file = source.file("tokenizer.json", token=token)
    if file is None:
        return None
    with reading(f"`added_tokens` of `{file}` are damaged"):
        return {entry["content"] for entry in read_json(file).get("added_tokens", [])}

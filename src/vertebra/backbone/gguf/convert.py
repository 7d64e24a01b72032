"""A GGUF file as an ordinary model folder: config, fp32 weights, tokenizer, chat template.

The weights are dequantized exactly and kept in fp32, so that every number type that is asked for later is rounded once.
`gguf_folder` converts a file the first time that it is named and keeps the folder in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertebra import compat, log
from vertebra.backbone.gguf.header import GgufHeader, check_extents, read_gguf
from vertebra.backbone.gguf.tokenizer import gguf_tokenizer
from vertebra.backbone.tiny.write import cache_folder
from vertebra.errors import CheckpointError, MissingPartError
from vertebra.folders import write_whole

_VERSION = "1"
"""Raised when the conversion changes, so that a folder made by an older one is not used."""


def gguf_folder(file: Path) -> Path:
    """The model folder of a GGUF file in the user's cache; made when the file is seen first, or has changed."""
    header = read_gguf(file)
    folder = cache_folder() / "gguf" / f"{file.stem}-{_key(header)}"
    if folder.is_dir():
        return folder
    log.info(f"`{file.name}` is dequantized into `{folder}`, once")
    return convert_gguf(file, folder)


def convert_gguf(file: Path, folder: Path, *, replace: bool = False) -> Path:
    """Write a GGUF file as a plain Hugging Face folder, whole or not at all."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingPartError("a GGUF file", "gguf", "gguf")
    header = read_gguf(file)
    check_extents(header)
    return write_whole(folder, lambda part: _write(header, part), replace=replace)


def _key(header: GgufHeader) -> str:
    """Which file this is: its head holds the vocabulary and every tensor's place; size and time stand for the data."""
    digest = hashlib.sha256(_VERSION.encode())
    with header.file.open("rb") as stream:
        digest.update(stream.read(min(header.data_start, 64 << 20)))
    stat = header.file.stat()
    digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _write(header: GgufHeader, part: Path) -> None:
    tokenizer = gguf_tokenizer(header)
    with _quiet_bars():
        model = _dequantized(header)
    with compat.bars_only_in_terminals(), compat.errors_only():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """The library's bar for this has no switch; outside of a terminal it would fill a log."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _dequantized(header: GgufHeader) -> Any:
    """The model in fp32, by transformers' own reader; a tensor that is lacking or left over is an error."""
    import torch
    import transformers

    try:
        with compat.bars_only_in_terminals(), compat.errors_only():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                str(header.file.parent),
                gguf_file=header.file.name,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # readers of damaged files raise whatever their parsing meets
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"`{header.file}` (architecture `{header.architecture}`) cannot be dequantized by transformers "
            f"{transformers.__version__} ({type(error).__name__}: {text:.300})"
        ) from error
    lacking = [str(name) for key in ("missing_keys", "mismatched_keys") for name in report.get(key, ())]
    if lacking:
        raise CheckpointError(f"`{header.file}` lacks {len(lacking)} tensors of its model: {', '.join(lacking[:4])} …")
    return _plain(model)


def _plain(model: Any) -> Any:
    """The same model without the mark of its file, which makes the library refuse to save it."""
    import torch

    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = ""
    with torch.device("meta"):
        fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = model.generation_config
    return fresh

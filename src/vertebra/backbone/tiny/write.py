"""Write a tiny checkpoint into a folder, or find it in the user's cache; whole or not at all.

Everything goes into a sibling folder first and is renamed when it is complete, so that a reader never sees half a
checkpoint, and two processes that make the same one agree. It does not know backbones: what it writes is loaded by
the code that loads a 7B.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vertebra.backbone.tiny.spec import RECIPE, TinySpec
from vertebra.backbone.tiny.table import TINY, TINY_ENCODERS
from vertebra.backbone.tiny.tokenizer import chat_template, make_tokenizer, tiny_text
from vertebra.errors import ConfigError, UnknownNameError


def tiny_spec(name: str) -> TinySpec:
    """The row of a name, language models and encoders alike."""
    spec = TINY.get(name) or TINY_ENCODERS.get(name)
    if spec is None:
        raise UnknownNameError("tiny checkpoint", name, [*TINY, *TINY_ENCODERS])
    return spec


def write_tiny(
    name: str, folder: str | os.PathLike[str], *, seed: int = 0, overwrite: bool = False, **config_overrides: Any
) -> Path:
    """Make a tiny checkpoint of a family in `folder`: config, weights, tokenizer, generation settings.

    `config_overrides` go to the config class (`num_hidden_layers=4`, `dtype="bfloat16"`); one it does not know is
    an error.
    """
    spec = tiny_spec(name)
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"`{folder}` is a file; a checkpoint needs a folder. Name another one.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(
            f"`{folder}` is not empty, and `{name}` would mix with what is there. "
            "Name a new folder, or pass overwrite=True to replace it."
        )
    return _whole(folder, lambda part: _write(spec, part, seed, config_overrides), replace=True)


def tiny_checkpoint(name: str) -> Path:
    """The folder of a tiny checkpoint in the user's cache (`$VERTEBRA_CACHE`, else `~/.cache/vertebra`), made once.

    The folder's name holds a hash of all that went into it, so a changed recipe never meets old files.
    """
    spec = tiny_spec(name)
    folder = cache_folder() / "tiny" / f"{name}-{_key(spec)}"
    if folder.is_dir():
        return folder
    return _whole(folder, lambda part: _write(spec, part, 0, {}), replace=False)


def cache_folder() -> Path:
    """Where checkpoints made on the way are kept."""
    chosen = os.environ.get("VERTEBRA_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vertebra"


def _key(spec: TinySpec) -> str:
    """A hash of the row, the text, the template, the recipe, and the libraries that write the files."""
    parts = {
        "spec": asdict(spec),
        "text": tiny_text(),
        "template": chat_template(spec.template) if spec.template else None,
        "recipe": RECIPE,
        "libraries": [version("transformers"), version("tokenizers")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _whole(folder: Path, write: Callable[[Path], None], *, replace: bool) -> Path:
    """Let `write` fill a sibling of `folder`, then rename it. Without `replace`, whoever is first wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        part.chmod(0o755)  # mkdtemp's folder is private to its user
        write(part)
        if replace and folder.is_dir():
            shutil.rmtree(folder)
        try:
            part.rename(folder)
        except OSError:
            if replace or not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(spec: TinySpec, folder: Path, seed: int, overrides: dict[str, Any]) -> None:
    tokenizer = make_tokenizer(spec.tokenizer, max_length=_max_length(spec, overrides), template=spec.template)
    model = _model(spec, tokenizer, seed, overrides)
    with _silence():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if spec.generation is not None:
        shipped = {**spec.generation, **_ids(spec.ids, tokenizer), **_ids(spec.generation_ids, tokenizer)}
        shipped["transformers_version"] = version("transformers")
        text = json.dumps(shipped, indent=2, sort_keys=True)
        (folder / "generation_config.json").write_text(text + "\n", encoding="utf-8")


def _model(spec: TinySpec, tokenizer: Any, seed: int, overrides: dict[str, Any]) -> Any:
    import torch
    import transformers

    from vertebra.backbone.tiny.weights import fill

    config_cls = getattr(transformers, spec.config_cls)
    known = config_cls().to_dict()
    for name in overrides:
        if name not in known:
            raise UnknownNameError(f"setting of {spec.config_cls}", name, known)
    settings = {"vocab_size": spec.rows, **_unset_ids(spec), **spec.config, **_ids(spec.ids, tokenizer), **overrides}
    dtype = settings.pop("dtype", None) or "float32"
    config = config_cls(**settings)
    with torch.random.fork_rng(devices=[]):  # the library draws its own weights first; leave the caller's seed alone
        model = getattr(transformers, spec.llm_cls)(config)
    fill(model, seed=seed, num_tokens=len(tokenizer), embed_std=spec.embed_std)
    model.to(getattr(torch, str(dtype).removeprefix("torch.")))
    return model.eval()


def _max_length(spec: TinySpec, overrides: dict[str, Any]) -> int:
    settings = {**spec.config, **overrides}
    return int(settings.get("n_positions") or settings["max_position_embeddings"])


def _unset_ids(spec: TinySpec) -> dict[str, None]:
    """Config classes have the ids of their largest model as defaults; none of those may stand."""
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


def _ids(tokens: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        name: [tokenizer.convert_tokens_to_ids(one) for one in token]
        if isinstance(token, tuple)
        else tokenizer.convert_tokens_to_ids(token)
        for name, token in tokens.items()
    }


@contextlib.contextmanager
def _silence() -> Any:
    """Saving draws a progress bar; a library prints nothing."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()

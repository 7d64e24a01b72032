"""Write a tiny checkpoint into a folder, or find it in the user's cache.

It does not know backbones: what it writes is loaded by the code that loads a 7B.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vertebra.backbone.tiny.checkpoints import TINY, TINY_ENCODERS
from vertebra.backbone.tiny.spec import TinySpec
from vertebra.backbone.tiny.tokenizer import make_tokenizer
from vertebra.errors import ConfigError, UnknownNameError
from vertebra.folders import require_free, write_whole

# Settings with one entry a layer; they follow when the number of layers is overridden.
_PER_LAYER = ("layer_types", "no_rope_layers")


def tiny_spec(name: str) -> TinySpec:
    """The row of a name, language models and encoders alike."""
    spec = TINY.get(name) or TINY_ENCODERS.get(name)
    if spec is None:
        known = [*TINY, *TINY_ENCODERS]
        raise UnknownNameError("tiny checkpoint", name, known, hint=f"Known: {', '.join(known)}.")
    return spec


def write_tiny(
    name: str, folder: str | os.PathLike[str], *, seed: int = 0, overwrite: bool = False, **config_overrides: Any
) -> Path:
    """Make a tiny checkpoint in `folder`, whole or not at all: config, weights, tokenizer, generation settings.

    `config_overrides` go to the config class (`num_hidden_layers=4`, `dtype="bfloat16"`); a name that it does not
    know is an error. The same seed gives the same bytes.
    """
    spec = tiny_spec(name)
    folder = Path(folder)
    require_free(folder, overwrite=overwrite)
    return write_whole(folder, lambda part: _write(spec, part, seed, config_overrides), replace=True)


def tiny_checkpoint(name: str) -> Path:
    """The folder of a tiny checkpoint in the user's cache (`$VERTEBRA_CACHE`, else `~/.cache/vertebra`), made once.

    The folder's name holds a hash of all that goes into it, so a changed recipe never meets old files.
    """
    spec = tiny_spec(name)
    folder = cache_folder() / "tiny" / f"{name}-{recipe_hash()}"
    if folder.is_dir():
        return folder
    return write_whole(folder, lambda part: _write(spec, part, 0, {}), replace=False)


def cache_folder() -> Path:
    """Where checkpoints made on the way are kept."""
    chosen = os.environ.get("VERTEBRA_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "vertebra"


def recipe_hash() -> str:
    """A hash of everything that decides the files: this package's rows, text, templates and code, and the libraries.

    The code counts as a whole: nobody has to remember to raise a version, at the price of a cache made anew.
    """
    digest = hashlib.sha256(f"{version('transformers')} {version('tokenizers')}".encode())
    package = resources.files("vertebra.backbone.tiny")
    for place in (package, package / "templates"):
        for file in sorted(place.iterdir(), key=lambda file: file.name):
            if file.name.endswith((".py", ".txt", ".jinja")):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _write(spec: TinySpec, folder: Path, seed: int, overrides: dict[str, Any]) -> None:
    settings = _settings(spec, overrides)
    max_length = int(settings.get("n_positions") or settings["max_position_embeddings"])
    tokenizer = make_tokenizer(spec.tokenizer, max_length=max_length, template=spec.template)
    # The ids of a config class's largest model are its defaults; none of those may stand.
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **_ids(spec.ids, tokenizer)}
    model = _model(spec, {**ids, **settings}, seed, len(tokenizer))
    with _no_progress_bar():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if spec.generation is not None:
        shipped = {**spec.generation, **_ids({**spec.ids, **spec.generation_ids}, tokenizer)}
        shipped["transformers_version"] = version("transformers")
        text = json.dumps(shipped, indent=2, sort_keys=True)
        (folder / "generation_config.json").write_text(text + "\n", encoding="utf-8")


def _settings(spec: TinySpec, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The row's settings with the overrides in, under the names that this config class itself uses."""
    import transformers

    config_cls = getattr(transformers, spec.config_cls)
    known = {*config_cls().to_dict(), *config_cls.attribute_map, "dtype"}
    settings: dict[str, Any] = {"vocab_size": spec.rows, **spec.config}
    for name, value in overrides.items():
        if name not in known:
            raise UnknownNameError(f"setting of {spec.config_cls}", name, known)
        own = config_cls.attribute_map.get(name, name)
        usual = spec.config.get(own)
        if type(usual) is int and usual > 0 and isinstance(value, int) and value < 1:
            raise ConfigError(f"{name} is {value}; a model needs 1 or more")
        settings[own] = value
    if settings["vocab_size"] < spec.tokenizer.size:
        raise ConfigError(
            f"vocab_size={settings['vocab_size']} is smaller than the tokenizer of `{spec.name}`, "
            f"which has {spec.tokenizer.size} tokens. Choose at least that."
        )
    for name in _PER_LAYER:
        if name in spec.config and name not in overrides:
            pattern = spec.config[name]
            settings[name] = [pattern[layer % len(pattern)] for layer in range(settings["num_hidden_layers"])]
    return settings


def _model(spec: TinySpec, settings: dict[str, Any], seed: int, num_tokens: int) -> Any:
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    from vertebra.backbone.tiny.weights import fill

    dtype = str(settings.pop("dtype", None) or "float32").removeprefix("torch.")
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ConfigError(f"`{dtype}` is no dtype of torch; expected float32, bfloat16 or float16.")
    try:
        config = getattr(transformers, spec.config_cls)(**settings)
        with torch.random.fork_rng(devices=[]):  # the library draws weights first; the caller's seed is not ours
            model = getattr(transformers, spec.llm_cls)(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, StrictDataclassError) as error:
        raise ConfigError(f"{spec.config_cls} cannot have these settings: {error}") from error
    fill(model, seed=seed, num_tokens=num_tokens)
    return model.to(getattr(torch, dtype)).eval()


def _ids(tokens: Mapping[str, str | tuple[str, ...]], tokenizer: Any) -> dict[str, Any]:
    """Tokens to ids; several tokens become a list."""
    return {
        name: tokenizer.convert_tokens_to_ids(list(token) if isinstance(token, tuple) else token)
        for name, token in tokens.items()
    }


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Saving draws a bar; a library prints nothing."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()

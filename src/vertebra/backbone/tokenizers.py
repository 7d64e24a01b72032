"""The tokenizer of a checkpoint, as its files say: `tokenizer.json` at its word, else `tokenizer.model`, else the rest.

The classes of transformers that families name (`LlamaTokenizer`) rebuild a tokenizer from its vocabulary alone, with
rules of their own: after `</s>` LLaMA-2's then gives `In` where its file, and training, gave `▁In`. Here the file's
rules stand. It does not know models.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from vertebra import compat, log
from vertebra.backbone.sentencepiece_file import Pieces, fast_tokenizer, is_sentencepiece, read_pieces
from vertebra.backbone.source import TOKENIZER_FILES, CheckpointSource, read_json
from vertebra.errors import CheckpointError
from vertebra.reading import reading, why_no_json

FILE = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
_SETTINGS = "tokenizer_config.json"
_NAMED = "special_tokens_map.json"
# What stands beside a vocabulary and says which tokens were added, how they are named, and how a chat is written.
_BESIDE = (_SETTINGS, _NAMED, "added_tokens.json", "chat_template.jinja")
_WORDS = ("a", "the", "Go left.", "0")  # at least two of them differ in any vocabulary
_INPUTS = ("input_ids", "attention_mask")
MOST_IDS = 2**26
"""The library keeps a place for every id up to the highest, used or not: one of four thousand million ends the process."""
_SUSPICIOUS = (re.compile(rb":\s*\d{8,}"), re.compile(rb'"continuing_subword_prefix":\s*"[^"]'))
"""A long number, a prefix that merges may lack: worth parsing the file for. One pattern for both takes ten times as long."""


def load_tokenizer(source: CheckpointSource, config: Any, most: int, *, side: str, token: str | None) -> Any:
    """The fast tokenizer of a checkpoint; `most` is how many positions the user wants at the most."""
    positions = getattr(config, "max_position_embeddings", None) or most
    if not isinstance(positions, int):
        raise CheckpointError(
            f"`max_position_embeddings` in the config of `{source.name}` is {positions!r:.60}; expected a whole number"
        )
    settings = {
        "model_max_length": min(most, positions),
        "padding_side": side,
    }
    # the config of a multimodal folder of ours is no model type that the library knows, and it says so at length
    quiet: Any = compat.errors_only() if source.inside else nullcontext()
    with reading(f"the tokenizer of `{source.name}` cannot be loaded", "copy or save its files again"):
        with quiet:
            tokenizer = _read(source, settings, token)
        if not tokenizer.is_fast:
            raise CheckpointError(
                f"`{source.name}` has no fast tokenizer (tokenizer.json); offsets and probes need one"
            )
        _require_words(tokenizer, source)
    return tokenizer


def _require_words(tokenizer: Any, source: CheckpointSource) -> None:
    """Without its vocabulary file some classes make a tokenizer of nothing but special tokens, without a word."""
    ids = {i for word in _WORDS for i in tokenizer(word, add_special_tokens=False).input_ids}
    if len(ids) < 2:
        raise CheckpointError(
            f"the tokenizer of `{source.name}` has no vocabulary: it has {len(tokenizer)} tokens and makes "
            f"{f'id {ids.pop()}' if ids else 'nothing'} of every text. It was read from the files that are there; expected "
            f"one of {', '.join(TOKENIZER_FILES[:3])}. Fetch it again, or save it beside the weights with "
            "`tokenizer.save_pretrained(folder)`"
        )


def _require_readable(source: CheckpointSource, token: str | None) -> None:
    """What ends the whole process in the library is refused before it: text that is no UTF-8, ids beyond what any
    vocabulary has, and merges without the prefix that the library cuts off them, be it in the middle of a letter."""
    for name in (FILE, "vocab.json"):
        file = source.file(name, token=token)
        if file is None:
            continue
        content = file.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"`{file}` is damaged: {why_no_json(error)}. Copy or save it again") from None
        if not any(pattern.search(content) for pattern in _SUSPICIOUS):
            continue
        tree = read_json(file)
        model = tree.get("model") if name == FILE else {"vocab": tree}
        _require_prefix(file, model)
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        for word, number in vocabulary.items() if isinstance(vocabulary, dict) else ():
            if isinstance(number, int) and number >= MOST_IDS:
                raise CheckpointError(
                    f"`{file}` gives {word!r:.40} the id {number}; expected ids that count on from 0, below {MOST_IDS}. "
                    "Copy or save it again"
                )


def _require_prefix(file: Path, model: Any) -> None:
    merges = model.get("merges") if isinstance(model, dict) else None
    prefix = model.get("continuing_subword_prefix") if isinstance(merges, list) else None
    if not isinstance(merges, list) or not isinstance(prefix, str):
        return
    for merge in merges:
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not isinstance(pair, list) or not str(pair[-1] if pair else "").startswith(prefix):
            raise CheckpointError(
                f"in `{file}` what continues a word begins with {prefix!r:.40}, and its merge {merge!r:.60} does not. "
                "Copy or save it again"
            )


def _read(source: CheckpointSource, settings: Mapping[str, Any], token: str | None) -> Any:
    _require_readable(source, token)
    where = str(source.folder) if source.local else source.name
    model = source.file(SENTENCEPIECE, token=token)
    is_pieces = model is not None and is_sentencepiece(model)
    if source.file(FILE, token=token) is not None:
        tokenizer = transformers.TokenizersBackend.from_pretrained(
            where, token=token, model_input_names=list(_INPUTS), **settings
        )
    elif model is not None and is_pieces:
        tokenizer = _converted(source, read_pieces(model), settings, token)
    else:
        return transformers.AutoTokenizer.from_pretrained(where, token=token, trust_remote_code=False, **settings)
    tokenizer.vocab_file = str(model) if is_pieces else None
    return tokenizer


def _converted(source: CheckpointSource, pieces: Pieces, settings: Mapping[str, Any], token: str | None) -> Any:
    """The tokenizer of a folder that has a SentencePiece model alone, by way of the `tokenizer.json` that it means."""
    if pieces.charsmap:
        log.warn(
            f"the tokenizer of `{source.name}` normalizes text; combining marks behind blanks may get other ids here than "
            "from sentencepiece. `vertebra check` compares the two"
        )
    beside = {name: file for name in _BESIDE if (file := source.file(name, token=token)) is not None}
    declared = {
        key: value for name in (_NAMED, _SETTINGS) if name in beside for key, value in read_json(beside[name]).items()
    }
    named = {
        name: text
        for name, text in (
            ("unk_token", pieces.text(pieces.unk_id)),
            ("bos_token", pieces.text(pieces.bos_id)),
            ("eos_token", pieces.text(pieces.eos_id)),
            ("pad_token", pieces.text(pieces.pad_id)),
        )
        if text is not None and declared.get(name) is None
    }
    # LLaMA's own class puts BOS in front unless its settings say otherwise
    backend = fast_tokenizer(
        pieces, add_bos=declared.get("add_bos_token") is not False, add_eos=declared.get("add_eos_token") is True
    )
    with tempfile.TemporaryDirectory(prefix="vertebra-tokenizer-") as folder:
        for name, file in beside.items():
            shutil.copyfile(file, Path(folder) / name)
        backend.save(str(Path(folder) / FILE))
        tokenizer = transformers.TokenizersBackend.from_pretrained(
            folder, model_input_names=list(_INPUTS), **named, **settings
        )
    tokenizer.name_or_path = source.name
    _check_added(source, tokenizer, beside, declared)
    return tokenizer


def _check_added(
    source: CheckpointSource, tokenizer: Any, beside: Mapping[str, Path], declared: Mapping[str, Any]
) -> None:
    """Tokens that were added to a SentencePiece model have the ids with which the weights were trained."""
    listed = read_json(beside["added_tokens.json"]) if "added_tokens.json" in beside else {}
    for number, entry in declared.get("added_tokens_decoder", {}).items():
        listed[entry["content"]] = int(number)
    vocabulary = tokenizer.get_vocab()
    wrong = {name: number for name, number in listed.items() if vocabulary.get(name) != number}
    if wrong:
        shown = ", ".join(f"{name} {number} ({vocabulary.get(name)} here)" for name, number in list(wrong.items())[:4])
        raise CheckpointError(
            f"`{source.name}` names added tokens whose ids do not follow its {SENTENCEPIECE}: {shown}. Save a {FILE} "
            "beside it with the library that trained it"
        )


def file_backend(source: CheckpointSource, token: str | None = None) -> Tokenizer | None:
    """What a checkpoint's own `tokenizer.json` says, read by the `tokenizers` library alone; None where it has none."""
    file = source.file(FILE, token=token)
    if file is None:
        return None
    backend = Tokenizer.from_file(str(file))
    backend.no_truncation()
    backend.no_padding()
    return backend


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer, under a class name that every transformers reads as `take the file`, and its SentencePiece
    model where it came with one."""
    tokenizer.save_pretrained(folder)
    file = folder / _SETTINGS
    settings = read_json(file)
    if settings.get("tokenizer_class") == "TokenizersBackend":  # unknown to transformers 4, which refuses it
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    model = getattr(tokenizer, "vocab_file", None)
    if not model or not model.endswith(SENTENCEPIECE):
        return
    if Path(model).is_file():
        shutil.copyfile(model, folder / SENTENCEPIECE)
    else:
        log.warn(
            f"`{model}` is gone, so that `{folder}` is saved without a {SENTENCEPIECE}; {FILE} has the same content"
        )

"""What an OpenVLA or OFT folder's actions mean: the record that travels with the model, and the parts that act.

Its de-tokenizer counts ids down from the rows of the vocabulary without their padding (32064 − 64); statistics are by data
set. OFT fills a slot for every number of a chunk with zeros, sees both ways over everything, and reads the states one
before each slot. It knows neither images nor names of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vertebra.action.record import POLICY, ActionRecord
from vertebra.backbone.weights import parameters_on_meta, some
from vertebra.errors import CheckpointError
from vertebra.interop.openvla import oft
from vertebra.interop.openvla.folder import OpenVLAFacts
from vertebra.interop.openvla.options import TEMPLATES, Guesses, ImportOptions
from vertebra.model.encoders.part import Part
from vertebra.model.encoders.queries import Queries
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.heads.ddim import DdimHead
from vertebra.model.heads.l1 import L1Head
from vertebra.model.projectors import Projector

ACTION = "action"
STOP = 2
"""OFT's constant: `</s>` of LLaMA's vocabulary stands behind the slots, as it did in training."""
Acting = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Record, parts, heads."""


def acting(
    facts: OpenVLAFacts, backbone: Any, extras: oft.Extras | None, options: ImportOptions, guesses: Guesses
) -> Acting:
    """What makes a model act; nothing for one that is no policy."""
    if not facts.acts:
        return {}, {}, {}
    if extras is not None and extras.head:
        return _by_head(facts, backbone, extras, options, guesses)
    if options.chunk is not None or (extras is not None and extras.proprio):
        return _in_slots(facts, backbone, extras or oft.Extras(), options, guesses)
    return _token_by_token(facts, backbone, options, guesses)


def _token_by_token(facts: OpenVLAFacts, backbone: Any, options: ImportOptions, guesses: Guesses) -> Acting:
    record = ActionRecord(
        head="tokens",
        dims=_dims(facts, None, guesses),
        bins=_bins(facts, backbone, options, guesses),
        cameras=options.cameras or ("image",),
        **_asked(facts, backbone, options, guesses),
    )
    return {POLICY: record.to_json()}, {}, {}


def _in_slots(
    facts: OpenVLAFacts, backbone: Any, extras: oft.Extras, options: ImportOptions, guesses: Guesses
) -> Acting:
    """OFT without a head: the tokens of a whole chunk in one pass."""
    parts, proprio = _proprio(extras, backbone)
    shape = oft.shape_of(_names(facts), _dims(facts, None, guesses), proprio, options, guesses)
    record = ActionRecord(
        head="parallel",
        bins=_bins(facts, backbone, options, guesses),
        **_chunk(shape),
        **_asked(facts, backbone, options, guesses),
    )
    return {POLICY: record.to_json()}, {**parts, ACTION: _slots(shape, backbone)}, {}


def _by_head(
    facts: OpenVLAFacts, backbone: Any, extras: oft.Extras, options: ImportOptions, guesses: Guesses
) -> Acting:
    """OFT: a chunk of numbers in one pass, or out of noise."""
    where = f"`{extras.files.get(oft.HEAD)}` of `{facts.where}`"
    parts, proprio = _proprio(extras, backbone)
    probe = _head(extras, 1)
    if probe.width != backbone.embedding_width:
        raise CheckpointError(
            f"{where} reads hidden states {probe.width} wide, and the language model's are {backbone.embedding_width}; it "
            "belongs to another model"
        )
    shape = oft.shape_of(_names(facts), _dims(facts, probe.dims, guesses), proprio, options, guesses)
    head = _head(extras, shape.chunk)
    _put(head, {**extras.head, **{f"noisy.{name}": tensor for name, tensor in extras.noisy.items()}}, where)
    common = {**_chunk(shape), **_asked(facts, backbone, options, guesses)}
    if isinstance(head, DdimHead):
        guesses.add(f"noise of {head.times} steps, OFT's default: no file says it")
        record = ActionRecord(head="ddim", steps=head.times, **common)
    else:
        record = ActionRecord(head="l1", **common)
    queries = Queries(head.slots, backbone.embedding_width, start="zeros", learned=False)
    return {POLICY: record.to_json()}, {**parts, ACTION: queries}, {ACTION: head}


def _head(extras: oft.Extras, chunk: int) -> L1Head | DdimHead:
    """The head that its tensors fit, without weights."""
    with parameters_on_meta():
        kind = DdimHead if extras.diffuses else L1Head
        return kind.shaped_as(extras.head, chunk=chunk)


def _proprio(extras: oft.Extras, backbone: Any) -> tuple[dict[str, Any], int | None]:
    """The part of what a robot reports of itself, and how many numbers that is."""
    if not extras.proprio:
        return {}, None
    first = extras.proprio.get("fc1.weight")
    if first is None or first.ndim != 2:
        raise CheckpointError(f"`{extras.files.get(oft.PROPRIO)}` has no fc1.weight; expected OFT's proprio projector")
    count = int(first.shape[1])
    with parameters_on_meta():
        part = Part(VectorEncoder(count), Projector("gelu2", count, backbone.embedding_width), place="anchored")
    _put(part.projector, extras.proprio, f"`{extras.files.get(oft.PROPRIO)}`")
    return {"proprio": part}, count


def _put(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Tensors into a module that was made for them: each once, each of its shape."""
    expected = module.state_dict()
    wrong = [f"{n} is missing" for n in expected if n not in tensors]
    wrong += [f"{n} belongs to nothing" for n in tensors if n not in expected]
    wrong += [
        f"{n} is {tuple(tensors[n].shape)}, expected {tuple(expected[n].shape)}"
        for n in expected
        if n in tensors and tensors[n].shape != expected[n].shape
    ]
    if wrong:
        raise CheckpointError(f"{where} does not fit: {some(wrong)}; copy it again")
    module.load_state_dict(dict(tensors), assign=True)


def _slots(shape: oft.Shape, backbone: Any) -> Queries:
    return Queries(shape.chunk * shape.dims, backbone.embedding_width, start="zeros", learned=False)


def _chunk(shape: oft.Shape) -> dict[str, Any]:
    return {
        "dims": shape.dims, "chunk": shape.chunk, "cameras": shape.cameras, "proprio": shape.proprio,
        "normalization": shape.normalization, "proprio_normalization": shape.normalization,
        "attention": "row", "tail": (STOP,),
    }  # fmt: skip


def _asked(facts: OpenVLAFacts, backbone: Any, options: ImportOptions, guesses: Guesses) -> dict[str, Any]:
    """What every record says of the prompt, and of the data."""
    return {
        "template": TEMPLATES[prompt_of(facts, options, guesses)],
        "raw": True,
        "lower": True,
        "lead": lead_of(backbone),
        "statistics": dict(facts.statistics),
    }


def _bins(facts: OpenVLAFacts, backbone: Any, options: ImportOptions, guesses: Guesses) -> dict[str, Any]:
    return {"scheme": "openvla", "vocabulary": vocabulary(facts, backbone, options, guesses), "count": facts.bins}


def _names(facts: OpenVLAFacts) -> tuple[str, ...]:
    """Names that may hold a robot's: of data sets first, then of the folder."""
    return (*facts.statistics, Path(facts.where).name)


def _dims(facts: OpenVLAFacts, head: int | None, guesses: Guesses) -> int:
    """Numbers in an action: the head's, which the statistics must have too, or those of the statistics."""
    dims = facts.dims()
    if head is not None:
        other = {key: count for key, count in dims.items() if count != head}
        if len(other) == len(dims):
            raise CheckpointError(
                f"the head of `{facts.where}` makes actions of {head} numbers, and its statistics are of {other}: those of "
                "another robot. Copy the dataset_statistics.json that training wrote"
            )
        return head
    first = next(iter(dims.values()))
    if len(set(dims.values())) > 1:
        guesses.add(f"its data sets have actions of several lengths ({dims}); {first} was taken, that of the first")
    return first


def vocabulary(facts: OpenVLAFacts, backbone: Any, options: ImportOptions, guesses: Guesses) -> int:
    """The id behind that of the action −1: what the original's inference code computes."""
    if options.action_vocabulary is not None:
        return options.action_vocabulary
    rows, padding = (
        facts.count("vocab_size", backbone.num_rows, text=True),
        facts.count("pad_to_multiple_of", 64),
    )
    last, pad = rows - padding, facts.config.get("pad_token_id")
    trained = int(backbone.tokenizer.vocab_size)
    if (pad, trained) != (last, last):
        guesses.add(
            f"action ids end below {last} (rows {rows} − {padding}), as the original's inference code has it, though its pad "
            f"id {pad} and its tokenizer of {trained} tokens do not fit that; action_vocabulary=… sets another"
        )
    return last


def prompt_of(facts: OpenVLAFacts, options: ImportOptions, guesses: Guesses) -> str:
    """Which version of the format its prompts have."""
    if options.prompt is not None:
        return options.prompt
    if "v01" in facts.where:
        guesses.add("prompts have the form of v0.1, for its name has `v01`; prompt=… says otherwise")
        return "v01"
    return "openvla"


def lead_of(backbone: Any) -> tuple[int, ...]:
    """The lone `▁` between `Out:` and an action, in vocabularies of SentencePiece (29871 in LLaMA's)."""
    found = backbone.habits.lone_space_id
    if found is None or backbone.tokenizer.convert_ids_to_tokens(found) != "▁":
        return ()
    return (int(found),)

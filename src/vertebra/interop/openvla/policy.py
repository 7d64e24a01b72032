"""What an OpenVLA folder's actions mean, as the record that travels with the model.

Its de-tokenizer counts ids down from the rows of the vocabulary without their padding (32064 − 64); statistics are by data
set. It knows neither tensors nor images.
"""

from __future__ import annotations

from typing import Any

from vertebra.action.record import POLICY, ActionRecord
from vertebra.interop.openvla.folder import Facts
from vertebra.interop.openvla.options import TEMPLATES, Guesses, ImportOptions


def record_of(facts: Facts, backbone: Any, options: ImportOptions, guesses: Guesses) -> dict[str, Any]:
    """`{"policy": …}`, or nothing for a model that is no policy."""
    if not facts.acts:
        return {}
    dims = facts.dims()
    first = next(iter(dims.values()))
    if len(set(dims.values())) > 1:
        guesses.add(f"its data sets have actions of several lengths ({dims}); {first} was taken, that of the first")
    made = ActionRecord(
        head="tokens",
        dims=first,
        bins={"scheme": "openvla", "vocabulary": vocabulary(facts, backbone, options, guesses), "count": facts.bins},
        cameras=options.cameras or ("image",),
        template=TEMPLATES[prompt_of(facts, options, guesses)],
        raw=True,
        lower=True,
        lead=lead_of(backbone, guesses),
        statistics=dict(facts.statistics),
    )
    return {POLICY: made.to_json()}


def vocabulary(facts: Facts, backbone: Any, options: ImportOptions, guesses: Guesses) -> int:
    """The id behind that of the action −1: what the original's inference code computes."""
    if options.action_vocabulary is not None:
        return options.action_vocabulary
    rows, padding = (
        int(facts.text.get("vocab_size", backbone.num_rows)),
        int(facts.config.get("pad_to_multiple_of", 64)),
    )
    last, pad = rows - padding, facts.config.get("pad_token_id")
    trained = int(backbone.tokenizer.vocab_size)
    if (pad, trained) != (last, last):
        guesses.add(
            f"action ids end below {last} (rows {rows} − {padding}), as the original's inference code has it, though its pad "
            f"id {pad} and its tokenizer of {trained} tokens do not fit that; action_vocabulary=… sets another"
        )
    return last


def prompt_of(facts: Facts, options: ImportOptions, guesses: Guesses) -> str:
    """Which version of the format its prompts have."""
    if options.prompt is not None:
        return options.prompt
    if "v01" in facts.where:
        guesses.add("prompts have the form of v0.1, for its name has `v01`; prompt=… says otherwise")
        return "v01"
    return "openvla"


def lead_of(backbone: Any, guesses: Guesses) -> tuple[int, ...]:
    """The lone space between `Out:` and an action, in vocabularies that have one."""
    found = backbone.habits.lone_space_id
    return () if found is None else (int(found),)

"""What a policy adds to decoding, what keeping an instruction saves, and what several robots at once save.

    python benchmarks/bench_policy.py [--quick] [--large]

One thread and process CPU time; all sides of a row take turns in one process, medians. Random weights: times do not depend on
them. `--large` adds a model of 60 M. No time is asserted.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

from timing import in_turn
from vertebra import Model, grow_vocabulary, load_backbone
from vertebra.action import ActionRecord, action_tokens, token_ids, uniform_bins
from vertebra.backbone.tiny import write_tiny
from vertebra.decode.call import generate
from vertebra.decode.choose.constraint import AllowedSteps
from vertebra.model import PatchEncoder, new_part
from vertebra.policies import Observation, Policy, PolicySettings

DIMS, CHUNK = 7, 1
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "60 M": {
        "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10,
        "num_key_value_heads": 10,
    },
}  # fmt: skip
SHORT = "pick up the red block"
LONG = (
    "open the top drawer of the cabinet, take the black bowl that stands beside the cookie box out of it, and put it on "
    "the white plate at the left of the stove without touching the bottle of wine"
)


def made(size: str, *, images: str, slots: int, folder: str) -> Model:
    name: Any = write_tiny("tiny-llama2", folder, max_position_embeddings=2048, **SIZES[size])
    backbone = load_backbone(name, dtype="float32", builder="pure")
    grow_vocabulary(backbone, action_tokens(256))
    side = int(slots**0.5)
    camera = PatchEncoder(64, image_size=14 * side, patch_size=14)
    act, *ids = token_ids(backbone.tokenizer.get_vocab(), action_tokens(256))
    numbers = {name: [value] * DIMS for name, value in (("q01", -1.0), ("q99", 1.0), ("min", -1.0), ("max", 1.0))}
    record = ActionRecord(
        head="tokens", dims=DIMS, chunk=CHUNK, bins=uniform_bins(ids).to_json(), lead=(act,), images=images,
        statistics={"made": {"action": numbers}},
    )  # fmt: skip
    parts = {"image": new_part(backbone, camera, "gelu2")}
    return Model(backbone, parts, record={"policy": record.to_json()}).eval()


def measured(works: dict[str, Any], rounds: int) -> dict[str, float]:
    for work in works.values():
        work()
    return in_turn(works, rounds=rounds, clock=time.process_time)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def overhead(model: Model, rounds: int) -> None:
    """An action by the policy, and its decoding alone."""
    policy, seen = Policy(model), image(0)
    row = policy.prompts.row(Observation.of(seen), SHORT, None)
    batch = model.collate([row.sequence], [row.features])
    steps = AllowedSteps([policy.bins.allowed] * DIMS)
    taken = measured(
        {
            "act": lambda: policy.act(seen, SHORT),
            "decoding": lambda: generate(model, batch, max_new_tokens=DIMS, constraint=steps),
        },
        rounds,
    )
    print(f"    act {taken['act'] * 1e3:7.1f} ms, of which decoding {taken['decoding'] * 1e3:7.1f} ms", flush=True)


def robots(model: Model, rounds: int, count: int = 8) -> None:
    policy, seen = Policy(model), [image(n) for n in range(count)]
    taken = measured({"one": lambda: policy.act(seen[0], SHORT), "many": lambda: policy.act_many(seen, SHORT)}, rounds)
    print(
        f"    {count} robots {taken['many'] * 1e3:7.1f} ms, {count * taken['one'] / taken['many']:.2f} × of one by one",
        flush=True,
    )


def prefix(model: Model, rounds: int) -> None:
    """The same policy with and without what it keeps of the instruction."""
    for name, text in (("short", SHORT), ("long", LONG)):
        kept, anew = Policy(model), Policy(model, settings=PolicySettings(keep_prefix=False))
        seen = image(0)
        taken = measured({"kept": lambda: kept.act(seen, text), "anew": lambda: anew.act(seen, text)}, rounds)  # noqa: B023
        words = len(anew.prompts.row(Observation.of(seen), text, None).sequence)
        print(
            f"    {name} instruction ({words} positions in all) {taken['kept'] * 1e3:7.1f} ms, "
            f"{taken['anew'] / taken['kept']:.2f} × of computing it anew",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for size in ("60 M", "tiny") if given.large else ("tiny",):
            rounds = 3 if given.quick else 9
            for slots in (16, 256):
                print(f"{size}, {slots} places of an image, {DIMS} numbers", flush=True)
                before = made(size, images="before", slots=slots, folder=f"{folder}/{size}-{slots}-a")
                overhead(before, rounds)
                robots(before, rounds)
                prefix(made(size, images="after", slots=slots, folder=f"{folder}/{size}-{slots}-b"), rounds)


if __name__ == "__main__":
    main()

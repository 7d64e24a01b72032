"""The words of a trace: what each thing that is called does, in a sentence for somebody who sees it the first time."""

from __future__ import annotations

from vertebra.decode.tracing.sheets import SheetLine
from vertebra.decode.tracing.trace import PassRecord, StepTrace

MEANS = {
    "encode": "Images and boxes become vectors: once, before anything else.",
    "prepare inputs": "Which columns go in now, their positions, and the mask of who may see whom.",
    "embed": "Every id is looked up in a table and becomes a vector.",
    "inject": "Vectors of images and boxes take the places that were kept for them.",
    "decoder layers": "Each layer lets columns look at earlier ones, and adds what it found. Keys and values are cached.",
    "norm": "Brings the last layer's vectors to one size.",
    "head": "The last column's vector becomes a score for every token: the logits.",
    "repetition_penalty": "Tokens that stand in the text already become less likely.",
    "no_repeat_ngram": "What would repeat a run of tokens is ruled out.",
    "sequence_bias": "Some tokens are made likelier or rarer by hand.",
    "banned": "Some tokens are not allowed here.",
    "forced": "Only these tokens are allowed here.",
    "temperature": "Below 1 the best tokens gain, above 1 the others do.",
    "top_k": "Only the k best tokens stay possible.",
    "top_p": "Only the best tokens that together hold the probability p stay possible.",
    "min_p": "What is far less likely than the best token is ruled out.",
    "typical_p": "Only tokens about as surprising as is to be expected stay possible.",
    "top_h": "Only the best tokens that hold a share of the entropy stay possible.",
    "cutoff": "Improbable tokens are ruled out.",
    "decay": "Tokens that end the answer become likelier with each step.",
    "numbers_only": "Scores that are no numbers become numbers.",
    "renormalize": "Scores become log probabilities.",
    "processor": "A rule of one's own.",
    "choose": "One token is taken: the best, or one drawn by its probability.",
    "append": "It joins the row, and will be the only column that goes in next: all others are in the cache.",
}


def span(values: list[int]) -> str:
    """`0 … 11` for a run of positions."""
    if not values:
        return "none"
    if len(values) == 1:
        return str(values[0])
    ordered = values == list(range(values[0], values[0] + len(values)))
    return f"{values[0]} … {values[-1]}" + ("" if ordered else ", not in order")


def size(count: float) -> str:
    """Bytes, in a unit that fits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def time_of(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def what_went_in(one: PassRecord) -> str:
    shape = ", ".join(map(str, one.shape))
    return f"{one.inputs} [{shape}]"


def story(step: StepTrace) -> str:
    """What is special about a step, in one sentence."""
    if not step.passes:
        return "The prompt had been computed before; its last logits were at hand."
    first = step.passes[0]
    if step.index == 0:
        if len(step.passes) > 1:
            return f"Prefill: the prompt goes through the model in {len(step.passes)} pieces, each seeing those before."
        kept = f" {first.cached} columns were in the cache already." if first.cached else ""
        return f"Prefill: all {first.shape[1]} columns of the prompt go through the model at once.{kept}"
    if first.cached_after == 0:
        return "No cache: the whole row goes through the model again."
    return f"Decode: one column goes in, the token just chosen; the {first.cached} before it are in the cache."


def line_place(line: SheetLine) -> str:
    """`41–46▢`: the positions of a line, and whether a box enters there."""
    positions = str(line.first) if line.first == line.last else f"{line.first}–{line.last}"
    return positions + ("▢" if line.slots else "")

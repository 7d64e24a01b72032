"""What reaches the total of a receipt without a language model: beside these stands `vertebra doc eval`.

    python benchmarks/receipts_rules.py DATA [--train 400] [--splits 5]

DATA is any format of pages with a field `total`; the first rows train, the others are asked, and further splits are drawn. A
rule takes the largest amount; a logistic regression picks one of the lines with an amount by hashed words: its own, those
left of it in its row, and where it stands. Without boxes it has its own words alone.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch

from vertebra.page.order import SAME_ROW
from vertebra.page.page import Line, Page
from vertebra.page.values import known_values
from vertebra.tasks.page_sets import read_documents

AMOUNT = re.compile(r"\d[\d,]*\.\d\d(?!\d)")
BUCKETS = 4096


@dataclass(frozen=True)
class Asked:
    """The lines of one receipt that hold an amount."""

    amounts: list[float]
    boxed: list[list[int]]
    """Features of each, with where it stands."""
    bare: list[list[int]]
    """Its own words alone."""
    total: float

    @property
    def right(self) -> list[bool]:
        return [amount == self.total for amount in self.amounts]


def number(text: str) -> float | None:
    found = AMOUNT.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def asked(page: Page) -> Asked | None:
    """None where the total stands on no line: nothing can pick it."""
    total = number(known_values(page).get("total", ""))
    lines = [line for line in page.to("relative").lines if line.box is not None]
    picked = [(line, amount) for line in lines if (amount := number(line.text)) is not None]
    if total is None or all(amount != total for _, amount in picked):
        return None
    largest = max(amount for _, amount in picked)
    boxed, bare = [], []
    for line, amount in picked:
        own = [f"own {word}" for word in words(line)] + [f"largest {amount == largest}"]
        row = [f"row {word}" for other in lines if left_of(other, line) for word in words(other)]
        _, top, right, bottom = line.box
        place = [f"y {round(10 * top)}", f"x {round(8 * right)}", f"high {round(200 * (bottom - top))}"]
        bare.append(hashed(own))
        boxed.append(hashed([*own, *row, *place]))
    return Asked([amount for _, amount in picked], boxed, bare, total)


def words(line: Line) -> list[str]:
    return re.sub(r"[^a-z ]+", " ", line.text.lower()).split() or ["-"]


def left_of(other: Line, line: Line) -> bool:
    a, b = other.box, line.box
    assert a is not None
    assert b is not None
    level = min(a[3], b[3]) - max(a[1], b[1]) > SAME_ROW * min(a[3] - a[1], b[3] - b[1])
    return other is not line and level and a[2] <= b[0]


def hashed(features: list[str]) -> list[int]:
    return [crc32(feature.encode()) % BUCKETS for feature in features]


def regression(train: list[Asked], held: list[Asked], name: str, steps: int = 300) -> float:
    """The share of receipts whose likeliest line has the total; one softmax over the lines of each."""
    weight = torch.zeros(BUCKETS, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.05)

    def scores(one: Asked) -> torch.Tensor:
        return torch.stack([weight[torch.tensor(indices)].sum() for indices in getattr(one, name)])

    def flat(receipts: list[Asked]) -> Any:
        """Every line of every receipt at once: (buckets, line of each, receipt of each line, right)."""
        lists = [indices for one in receipts for indices in getattr(one, name)]
        line = torch.repeat_interleave(torch.arange(len(lists)), torch.tensor([len(i) for i in lists]))
        receipt = torch.repeat_interleave(torch.arange(len(receipts)), torch.tensor([len(o.amounts) for o in receipts]))
        right = torch.tensor([one for o in receipts for one in o.right])
        return torch.tensor([one for o in lists for one in o]), line, receipt, right

    buckets, line, receipt, right = flat(train)
    for _ in range(steps):
        each = torch.zeros(len(receipt)).index_add(0, line, weight[buckets])
        spread = torch.zeros(len(train)).index_add(0, receipt, each.exp())
        hit = torch.zeros(len(train)).index_add(0, receipt, each.exp() * right)
        loss = (spread.log() - hit.log()).mean() + 1e-4 * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(np.mean([one.right[int(scores(one).argmax())] for one in held]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--splits", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    documents = read_documents(given.data)
    receipts = [asked(one.pages[0]) for one in documents]
    found: dict[str, list[float]] = {"the largest amount": [], "regression, no boxes": [], "regression, boxes": []}
    for split in range(given.splits):
        order = np.arange(len(receipts)) if split == 0 else np.random.default_rng(split).permutation(len(receipts))
        train = [receipts[n] for n in order[: given.train]]
        held = [receipts[n] for n in order[given.train :]]
        known, can = [one for one in train if one], [one for one in held if one]
        share = len(can) / len(held)  # those whose total stands on no line are wrong
        largest = float(np.mean([max(one.amounts) == one.total for one in can]))
        taken = (largest, regression(known, can, "bare"), regression(known, can, "boxed"))
        for name, rate in zip(found, taken, strict=True):
            found[name].append(rate * share)
    print(
        f"total of {len(receipts) - given.train} receipts, {given.train} to learn from; file's own split, then drawn ones"
    )
    for name, rates in found.items():
        print(f"{name:24} {rates[0]:.1%}   mean of {len(rates)}: {np.mean(rates):.1%} ± {np.std(rates):.1%}")


if __name__ == "__main__":
    main()

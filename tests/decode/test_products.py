"""Ways to multiply: every one gives torch's numbers; the fastest is taken, and only where it is so by far."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vertebra.decode.state import products
from vertebra.decode.state.products import Product, fastest

WAYS = ["torch", *products._possible([torch.ones(8, 8)], 0)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_every_way_gives_the_same(way, merged, rows, bias, monkeypatch):
    if not merged:
        monkeypatch.setattr(products, "MERGED_BYTES", 0)
    parts = [nn.Linear(64, width, bias=bias) for width in (96, 32, 40)]
    x = torch.randn(rows, 64)
    expected = torch.cat([part(x) for part in parts], 1)
    made = Product.of(*parts, way=way)
    assert len(made.weights) == (1 if merged else 3)
    torch.testing.assert_close(made(x), expected, rtol=1e-5, atol=1e-5)
    assert made.holds()
    assert made.is_fresh()


@pytest.mark.parametrize("row", [0, 95, 130, 167])
@torch.no_grad()
def test_a_number_that_changes_in_place_is_seen_where_it_was_packed(row):
    if "packed" not in WAYS:
        pytest.skip("torch has no oneDNN here")
    parts = [nn.Linear(64, width) for width in (96, 32, 40)]
    made = Product.of(*parts, way="packed")
    made.weights[0][row, 5] += 1e-3
    assert not made.is_fresh()


def test_new_weights_are_seen():
    part = nn.Linear(64, 8)
    made = Product.of(part)
    part.weight = nn.Parameter(part.weight.detach().clone())
    assert not made.holds()


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"torch": 10, "onednn": 10, "packed": 10}, "torch"),
        ({"torch": 10, "onednn": 9, "packed": 8}, "torch"),
        ({"torch": 10, "onednn": 8, "packed": 6.5}, "onednn"),
        ({"torch": 10, "onednn": 9, "packed": 7}, "packed"),
        ({"torch": 10, "onednn": 6, "packed": 4}, "packed"),
        ({"torch": 5, "onednn": 6, "packed": 7}, "torch"),
    ],
)
def test_only_what_is_faster_by_far_is_taken(seconds, chosen, monkeypatch):
    if "packed" not in WAYS:
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "_seconds", lambda ways: seconds)
    assert fastest([torch.ones(8, 8)] * 3, 1 << 30) == chosen


def test_every_way_takes_turns_with_what_it_needs():
    taken = products._seconds({way: (lambda x, matrix: x, [torch.ones(3, 8)] * 2) for way in WAYS})
    assert list(taken) == WAYS
    assert all(0 <= seconds < float("inf") for seconds in taken.values())


def test_what_is_tried_at_all(monkeypatch):
    monkeypatch.setattr(
        products, "_seconds", lambda ways: {way: {"torch": 9, "onednn": 3, "packed": 1}[way] for way in ways}
    )
    weights = [torch.ones(8, 8)] * 3
    best = WAYS[-1]
    assert fastest(weights, 1 << 30) == best
    assert fastest(weights, 1 << 10) == "torch"  # it runs out of the processor's cache
    assert fastest(weights, products.PACKED_BYTES + 1) == ("onednn" if len(WAYS) > 1 else "torch")
    assert fastest([weight.double() for weight in weights], 1 << 30) == "torch"
    odd = [torch.ones(8, 7)] * 3  # rows that end inside of a word have no checksum
    assert fastest(odd, 1 << 30) != "packed"


def test_the_matrices_that_weigh_most_are_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(products, "fastest", lambda weights, total: tried.append((len(weights), total)) or "torch")
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 64), nn.Linear(8, 64), nn.LayerNorm(8))
    assert products.way_of(model) == "torch"
    assert tried == [(2, 4 * (4 * 64 + 2 * 512))]
    assert products.way_of(nn.LayerNorm(8)) == "torch"
    assert products.way_of(model.to("meta")) == "torch"
    assert len(tried) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way != "torch"])
def test_linears_inside_a_long_pass_are_onednns(way, monkeypatch):
    counted = []
    onednn = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *args: counted.append(1) or onednn(*args))
    modules = nn.ModuleList([nn.Linear(64, 32), nn.Linear(64, 32, bias=False)])
    x = torch.randn(2, 7, 64)
    for module in modules:
        with torch.no_grad():
            expected = module(x)
            with products.long_passes(lambda: way, torch.float32):
                torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
                assert module(x[:, :0]).shape == (2, 0, 32)
    assert len(counted) == 2
    with torch.no_grad(), products.long_passes(lambda: way, torch.float32):
        nn.Linear(64, 32, dtype=torch.bfloat16)(x.bfloat16())
    with torch.no_grad(), products.long_passes(lambda: way, torch.bfloat16):
        modules[0](x)
    with products.long_passes(lambda: way, torch.float32):
        modules[0](x).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), products.long_passes(lambda: way, torch.float32):
        assert modules[0](x).dtype == torch.bfloat16
    with torch.no_grad(), products.long_passes(lambda: "torch", torch.float32):
        modules[0](x)
    assert len(counted) == 2

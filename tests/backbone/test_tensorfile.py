"""Tensors written straight: the library reads them as if it had written them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save

from vertebra.backbone.tensorfile import _NAMES, save_tensors

shapes = st.lists(st.integers(0, 5), max_size=3)


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(list(_NAMES)), shapes), max_size=6))
def test_what_the_library_reads(asked: dict):
    asked.pop("__metadata__", None)  # the format's own
    torch.manual_seed(len(asked))
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in asked.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        assert save_tensors(tensors, path) == hashlib.sha256(path.read_bytes()).hexdigest()
        found, theirs = load_file(path), load(save(tensors))
        assert set(found) == set(tensors)
        for name, tensor in tensors.items():
            assert found[name].dtype == theirs[name].dtype == tensor.dtype
            assert found[name].shape == tensor.shape
            assert torch.equal(found[name].float(), tensor.float())


def test_more_than_one_chunk(tmp_path: Path):
    tensors = {"a": torch.randn(3_000_001), "b": torch.arange(5)}
    mark = save_tensors(tensors, tmp_path / "a")
    assert mark == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    found = load_file(tmp_path / "a")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())

"""Weights out of an ONNX file, by its wire format alone: named tensors, and which node uses which of them.

An ONNX file is a protobuf message; the few fields that hold weights are read here, so that no package is needed for
it. Lengths are checked against the message that holds them. It knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from vertebra.errors import CheckpointError
from vertebra.protobuf import BYTES, fields, packed

# Field numbers of the messages that matter, as onnx.proto gives them.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_FLOAT_TYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


@dataclass(frozen=True)
class OnnxNode:
    """One operation of the graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """The operations of a graph, and its tensors of floats by name."""

    nodes: tuple[OnnxNode, ...]
    tensors: dict[str, np.ndarray]


def read_onnx(file: Path) -> OnnxFile:
    """Read a whole file; one that is damaged or truncated is an error."""
    try:
        data = memoryview(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"`{file}` cannot be read: {error.strerror}") from error
    try:
        nodes: list[OnnxNode] = []
        tensors: dict[str, np.ndarray] = {}
        for number, _, graph in fields(data):
            if number != _MODEL_GRAPH or not isinstance(graph, memoryview):
                continue
            for part, _, value in fields(graph):
                if part == _GRAPH_NODE and isinstance(value, memoryview):
                    nodes.append(_node(value))
                elif part == _GRAPH_INITIALIZER and isinstance(value, memoryview):
                    tensors.update(_tensor(value))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise CheckpointError(f"`{file}` is no whole ONNX file ({error}); fetch or copy it again") from error
    if not tensors:
        raise CheckpointError(f"`{file}` holds no tensors; it is no ONNX file with weights")
    return OnnxFile(tuple(nodes), tensors)


def _text(value: int | memoryview) -> str:
    if not isinstance(value, memoryview):
        raise ValueError("a name is no text")
    return bytes(value).decode("utf-8")


def _node(data: memoryview) -> OnnxNode:
    found: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: [""], _NODE_OP: [""]}
    for number, _, value in fields(data):
        if number in found:
            found[number].append(_text(value))
    return OnnxNode(found[_NODE_NAME][-1], found[_NODE_OP][-1], tuple(found[_NODE_INPUT]), tuple(found[_NODE_OUTPUT]))


def _tensor(data: memoryview) -> dict[str, np.ndarray]:
    """One tensor by its name, or nothing where it does not hold floats (shapes and axes do not)."""
    shape: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    for number, wire, value in fields(data):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else packed(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number in (_TENSOR_RAW, _TENSOR_FLOATS) and wire == BYTES and isinstance(value, memoryview):
            raw = value
    dtype = _FLOAT_TYPES.get(kind)
    if dtype is None:
        return {}
    if len(raw) != prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor `{name}` of shape {shape} has {len(raw)} bytes")
    return {name: np.frombuffer(bytes(raw), dtype).reshape(shape)}

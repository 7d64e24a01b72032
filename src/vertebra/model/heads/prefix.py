"""`Prefix`: what an expert's suffix sees of the backbone: the keys of each layer, up to the chunk's slot, of its document.

    row      BOS ▣ ▣ ▣ ▣  Reach  the  red  square  <ACT>  ▢ │ </s> …      keys after the slot, and padding, are hidden
    suffix                                                   a₀ a₁ a₂ a₃     positions go on behind the slot

It is taken from one pass of the backbone and used by every denoising step. Legend: M chunks, P columns, H heads of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vertebra.backbone.kept import LayerKeys
from vertebra.errors import BackboneError
from vertebra.model.heads.interface import ChunkPlaces, SeenByHeads


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """Keys and values of the layers that are read, for each chunk."""

    layers: tuple[LayerKeys, ...]
    """[M, H, P (+ room), d] each."""
    hidden: torch.Tensor | None
    """[M, P]: which columns a chunk does not see; None: it sees all of them."""
    start: torch.Tensor
    """[M] the position of a chunk's first action."""
    length: int
    """P."""
    room: int = 0
    """Columns behind P that a suffix may write into, so that nothing is copied at every step."""

    def seen(self, suffix: int) -> torch.Tensor | None:
        """[M, 1, 1, P + suffix]: what a suffix sees, itself included; None where that is everything."""
        if self.hidden is None:
            return None
        return torch.nn.functional.pad(~self.hidden, (0, suffix), value=True)[:, None, None]

    def joined(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> LayerKeys:
        """A layer's keys and values with the suffix's own behind them."""
        before = self.layers[layer]
        end = self.length + keys.shape[2]
        if not self.room:
            return torch.cat([before[0].to(keys), keys], 2), torch.cat([before[1].to(values), values], 2)
        for table, new in zip(before, (keys, values), strict=True):
            table[:, :, self.length : end] = new
        return before[0][:, :, :end], before[1][:, :, :end]

    def with_room(self, columns: int) -> Prefix:
        """The same with room for a suffix, for passes without gradients."""
        layers = []
        for pair in self.layers:
            wide = [table.new_empty((*table.shape[:2], self.length + columns, table.shape[3])) for table in pair]
            for table, old in zip(wide, pair, strict=True):
                table[:, :, : self.length] = old
            layers.append((wide[0], wide[1]))
        return Prefix(layers=tuple(layers), hidden=self.hidden, start=self.start, length=self.length, room=columns)

    def repeated(self, times: int) -> Prefix:
        """Every chunk's so many times, side by side."""
        layers = tuple(
            (keys.repeat_interleave(times, 0), values.repeat_interleave(times, 0)) for keys, values in self.layers
        )
        hidden = None if self.hidden is None else self.hidden.repeat_interleave(times, 0)
        start = self.start.repeat_interleave(times, 0)
        return Prefix(layers=layers, hidden=hidden, start=start, length=self.length)

    def with_gradients(self) -> Prefix:
        """The same in tensors that autograd may keep, though they were computed in inference mode."""
        with torch.inference_mode(False):
            layers = tuple((keys.clone(), values.clone()) for keys, values in self.layers)
            hidden, start = None if self.hidden is None else self.hidden.clone(), self.start.clone()
        return Prefix(layers=layers, hidden=hidden, start=start, length=self.length)


def prefix_of(
    seen: SeenByHeads, at: ChunkPlaces, reads: Sequence[int], shape: tuple[int, int], dtype: torch.dtype
) -> Prefix:
    """What the chunks of a batch see. `shape`: the heads and the width of keys that are expected."""
    assert seen.keys is not None, "it reads keys"
    _check_shapes(seen.keys, reads, shape)
    batch, slot = seen.batch, at.columns[:, -1]
    length = int(slot.max()) + 1
    whole = len(at) == batch.rows and torch.equal(at.rows, torch.arange(batch.rows, device=at.rows.device))

    def of(table: torch.Tensor) -> torch.Tensor:
        chosen = table[:, :, :length] if whole else table[at.rows, :, :length]
        return chosen.to(dtype)

    columns = torch.arange(length, device=slot.device)
    document = batch["document"][at.rows, :length]
    visible = (document == at.at(batch["document"])[:, -1:]) & (columns <= slot[:, None])
    return Prefix(
        layers=tuple((of(seen.keys[layer][0]), of(seen.keys[layer][1])) for layer in reads),
        hidden=None if bool(visible.all()) else ~visible,
        start=at.at(batch["position_ids"])[:, -1] + 1,
        length=length,
    )


def _check_shapes(keys: Sequence[LayerKeys], reads: Sequence[int], shape: tuple[int, int]) -> None:
    if max(reads) >= len(keys):
        raise BackboneError(
            f"the head reads the keys of layer {max(reads)}, and the backbone has {len(keys)} layers; it belongs to another"
        )
    wrong = []
    for layer in reads:
        found = {(table.shape[1], table.shape[3]) for table in keys[layer]}
        if found != {shape}:
            wrong.append(f"layer {layer} has {' and '.join(f'{h} heads of {d}' for h, d in sorted(found))}")
    if wrong:
        raise BackboneError(
            f"the head reads keys and values of {shape[0]} heads of {shape[1]} numbers, and {'; '.join(wrong[:3])}. Such "
            "layers cannot be read; name others (`reads`), or take a head that reads hidden states (`l1`)"
        )

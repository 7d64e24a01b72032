"""What each row holds: the ids of the prompt's text and of every token since, without padding and without slots.

Penalties, n-grams and foreign processors read it. A slot holds the id of a reserved token that was never generated, so it
counts for nothing. It knows ids, not scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class History:
    """Ids row by row, grown by one a step."""

    def __init__(self, ids: torch.Tensor, text: torch.Tensor, *, vocabulary: int, pad_id: int) -> None:
        """`ids` [B, L] and where they are text [B, L]."""
        self.vocabulary, self._pad = vocabulary, pad_id
        self._given, self._text = ids, text
        self._rows: list[list[int]] | None = None
        self._seen: torch.Tensor | None = None
        self._new: list[list[int]] = []  # one entry a step: a token a row
        self._grams: dict[int, list[dict[tuple[int, ...], set[int]]]] = {}

    @property
    def rows(self) -> list[list[int]]:
        """The ids of each row."""
        if self._rows is None:
            self._rows = [ids[text].tolist() for ids, text in zip(self._given.cpu(), self._text.cpu(), strict=True)]
            for tokens in self._new:
                self._extend(tokens)
        return self._rows

    def add(self, tokens: Sequence[int], chosen: torch.Tensor) -> None:
        """One more token a row, as numbers and as a tensor [B]."""
        self._new.append(list(tokens))
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], True)
        if self._rows is not None:
            self._extend(tokens)

    def _extend(self, tokens: Sequence[int]) -> None:
        for row, (ids, token) in enumerate(zip(self._rows or (), tokens, strict=True)):
            ids.append(token)
            for size, grams in self._grams.items():
                if len(ids) >= size:
                    grams[row].setdefault(tuple(ids[-size:-1]), set()).add(token)

    def seen(self, device: torch.device) -> torch.Tensor:
        """[B, V]: which ids stand in the row."""
        if self._seen is None:
            table = torch.zeros((len(self._given), self.vocabulary), dtype=torch.bool, device=device)
            for row, ids in enumerate(self.rows):
                table[row, ids] = True
            self._seen = table
        return self._seen

    def ids(self, device: torch.device) -> torch.Tensor:
        """[B, L]: the rows as one tensor, padded to the left, as processors of transformers read it."""
        longest = max(map(len, self.rows))
        padded = [[self._pad] * (longest - len(ids)) + ids for ids in self.rows]
        return torch.tensor(padded, dtype=torch.long, device=device)

    def repeats(self, size: int) -> list[list[int]]:
        """For each row the ids that would repeat `size` ids in a row."""
        if size not in self._grams:
            found: list[dict[tuple[int, ...], set[int]]] = []
            for ids in self.rows:
                grams: dict[tuple[int, ...], set[int]] = {}
                for end in range(size, len(ids) + 1):
                    grams.setdefault(tuple(ids[end - size : end - 1]), set()).add(ids[end - 1])
                found.append(grams)
            self._grams[size] = found
        last = size - 1
        return [
            list(grams.get(tuple(ids[len(ids) - last :]), ())) if len(ids) >= last else []
            for ids, grams in zip(self.rows, self._grams[size], strict=True)
        ]

    def follows(self, before: tuple[int, ...], token: int) -> list[list[int]]:
        """For each row `[token]` where its last ids are `before`."""
        length = len(before)
        return [[token] if tuple(ids[len(ids) - length :]) == before else [] for ids in self.rows]

    def select(self, rows: Sequence[int]) -> History:
        """The history of these rows alone."""
        index = torch.as_tensor(list(rows), device=self._given.device)
        new = History(self._given[index], self._text[index], vocabulary=self.vocabulary, pad_id=self._pad)
        new._new = [[tokens[row] for row in rows] for tokens in self._new]
        new._seen = None if self._seen is None else self._seen[index]
        return new

"""Sparse vectors as they are stored: the entries of all rows one after the other, and where each row's begin.

A column of them takes memory and disk by its entries, whatever its width, and reaches the model as a sparse tensor.
`SparseRows` is indexed, cut and joined as an array [rows, width] would be, so that whoever picks rows need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["ENTRY", "SparseRows"]

Array: TypeAlias = npt.NDArray[Any]

ENTRY = np.dtype([("index", "<i4"), ("value", "<f4")])  # of a row, 8 bytes; a file of entries is an array of these


class SparseRows:
    """Rows of one width, most of whose places are zero.

    starts: int64 [rows + 1]; row i has the entries starts[i] to starts[i + 1].
    entries: `ENTRY` [all of them]; within a row no index comes twice, and they ascend.
    width: places of a row.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, starts: Array, entries: Array, width: int):
        self.starts, self.entries, self.width = starts, entries, width

    @classmethod
    def of_parts(cls, counts: Array, indices: Array, values: Array, width: int) -> SparseRows:
        """From the number of entries of each row, and the indices and values of all of them."""
        entries = np.empty(len(values), ENTRY)
        entries["index"], entries["value"] = indices, values
        return cls(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), entries, width)

    @classmethod
    def of_dense(cls, rows: Array) -> SparseRows:
        """The entries of an array [rows, width] that are not zero."""
        lines, places = np.nonzero(rows)
        counts = np.bincount(lines, minlength=len(rows))
        return cls.of_parts(counts, places, rows[lines, places], rows.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)."""
        return len(self), self.width

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: Any) -> SparseRows:
        """Some rows, by numbers or a slice."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                starts = self.starts[start : max(start, stop) + 1]
                return SparseRows(starts - starts[0], self.entries[starts[0] : starts[-1]], self.width)
            rows = np.arange(len(self))[rows]
        begins, counts = self.starts[rows], self.starts[np.asarray(rows) + 1] - self.starts[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], counts)
        return SparseRows(starts, self.entries[places], self.width)

    def __array_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Sequence[Any], kwargs: Any
    ) -> Any:
        """numpy.concatenate joins them, as it does arrays; nothing else of numpy takes them."""
        if function is not np.concatenate or kwargs or len(args) > 1:
            return NotImplemented
        (parts,) = args
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        entries = np.concatenate([part.entries for part in parts])
        return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), entries, parts[0].width)

    def tensor(self) -> torch.Tensor:
        """A coalesced COO tensor, float32 [rows, width], of memory of its own."""
        lines = np.repeat(np.arange(len(self)), np.diff(self.starts))
        places = torch.from_numpy(np.stack([lines, self.entries["index"]]).astype(np.int64, copy=False))
        values = torch.from_numpy(np.array(self.entries["value"]))
        return torch.sparse_coo_tensor(places, values, self.shape, check_invariants=False, is_coalesced=True)

    def dense(self) -> Array:
        """The same as an array, float32 [rows, width]."""
        full = np.zeros(self.shape, np.float32)
        full[np.repeat(np.arange(len(self)), np.diff(self.starts)), self.entries["index"]] = self.entries["value"]
        return full

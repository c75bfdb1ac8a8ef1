"""What indexing found in the edges, and what it made of them: numbers for people and for ``graph.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

_MEANING = {
    "rows": "edges as given",
    "zero_weights": "rows whose weight is zero (or too small for float32)",
    "negative_weights": "rows whose weight is negative",
    "infinite_weights": "rows whose weight is infinite (or too large for float32)",
    "nan_weights": "rows whose weight is not a number",
    "null_weights": "rows whose weight is missing",
    "self_loops": "rows from a node to itself",
    "duplicate_edges": "rows that repeat an edge",
    "nodes": "nodes",
    "edges": "different edges kept",
    "arcs": "arcs in the files",
    "sinks": "nodes that kept edges only lead to: walks end there",
    "isolated_nodes": "nodes that only dropped rows mention",
    "largest_degree": "arcs that leave one node, before max_degree",
    "capped_nodes": "nodes whose arcs were cut to max_degree",
}


@dataclass(frozen=True)
class GraphReport:
    """Counts, all of them integers; :data:`_MEANING` says what each counts.

    A row has at most one fault of its weight. Rows with a faulty weight enter ``rows`` and their fault's count only.
    ``duplicate_edges`` counts rows that were merged into another one; self-loops that are dropped are not among them.
    """

    rows: int = 0
    zero_weights: int = 0
    negative_weights: int = 0
    infinite_weights: int = 0
    nan_weights: int = 0
    null_weights: int = 0
    self_loops: int = 0
    duplicate_edges: int = 0
    nodes: int = 0
    edges: int = 0
    arcs: int = 0
    sinks: int = 0
    isolated_nodes: int = 0
    largest_degree: int = 0
    capped_nodes: int = 0

    @property
    def weight_faults(self) -> dict[str, int]:
        """Rows by the fault of their weight, ``{"zero": 3, ...}``; only faults that occur."""
        counts = {
            name: int(getattr(self, f"{name}_weights")) for name in ("zero", "negative", "infinite", "nan", "null")
        }
        return {name: count for name, count in counts.items() if count}

    def to_dict(self) -> dict[str, int]:
        """The counts by name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GraphReport:
        """The report that :meth:`to_dict` gave. Names that this version does not know are left out."""
        return cls(**{f.name: int(values[f.name]) for f in fields(cls) if f.name in values})

    def __str__(self) -> str:
        """One line a count: number, name, meaning. Faults that did not occur are left out."""
        shown = {name: count for name, count in self.to_dict().items() if count or not name.endswith("_weights")}
        width = max(len(f"{count:,}") for count in shown.values())
        return "\n".join(f"{count:>{width},}  {name:<16}  {_MEANING[name]}" for name, count in shown.items())

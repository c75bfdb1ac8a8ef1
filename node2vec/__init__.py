"""Node embeddings of large graphs on Spark: node2vec.

Nothing is public yet.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__: list[str] = []

"""``python -m node2vec`` is the command ``node2vec``."""

from __future__ import annotations

import sys

from node2vec.cli import main

if __name__ == "__main__":
    sys.exit(main())

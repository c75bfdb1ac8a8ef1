"""``python -m sparkdl`` is the command ``sparkdl``."""

from __future__ import annotations

import sys

from sparkdl.cli import main

if __name__ == "__main__":
    sys.exit(main())

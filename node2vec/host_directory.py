"""Where tasks keep copies that all Python workers of an executor share: graphs, streams."""

from __future__ import annotations

import os

from pyspark import SparkFiles


def host_directory() -> str:
    """A directory of this executor, or, in local mode, of the session. Spark removes it with either."""
    # executors answer ".", which means nothing to others on the same host
    return os.path.join(os.path.abspath(SparkFiles.getRootDirectory()), "node2vec")

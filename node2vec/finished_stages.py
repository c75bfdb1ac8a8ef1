"""Whether the corpus and the vectors at a root are there already, told from manifests and footers, without Spark.

An answer of False means that the stage itself, which knows more, must be asked. (Of the walks, `walk_job.is_done` says
it; of the graph nobody can: only Spark lists all the places that edges come from.)
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from node2vec import corpus_files, corpus_job, skipgram_job, stage, walk_source
from node2vec.graph_files import absolute
from node2vec.walk_source import Source

MOST_FOOTERS = 256  # files of walks whose footers are read here; Spark reads those of more


def corpus_is_done(
    root: str | os.PathLike[str],
    partitions: int | None,
    episodes: int | None,
    min_count: int,
    sample: float,
    seed: int,
) -> bool:
    """Whether ``root/corpus`` was made from the walks at root with these settings; None fits any number.

    Raises ConfigError: there are no complete walks at root.
    """
    location = absolute(root)
    walks = corpus_job.walks_settings(location)
    found = stage.settings_of(location, corpus_job.STAGE, corpus_files.HEADER)
    if found is None:
        return False
    wanted = {"min_count": min_count, "sample": sample, "seed": seed}
    wanted |= {name: value for name, value in (("parts", partitions), ("episodes", episodes)) if value is not None}
    if any(found.get(name) != value for name, value in wanted.items()):
        return False
    sources = _sources(f"{location}/walks")
    return sources is not None and found.get("inputs") == corpus_job.fingerprint(walks, sources)


def vectors_are_done(root: str | os.PathLike[str], training: dict[str, Any]) -> bool:
    """Whether ``root/vectors`` was made from the corpus at root. training: what `skipgram_job.check` takes.

    Raises ConfigError: there is no complete corpus at root.
    """
    location = absolute(root)
    header = corpus_files.read_header(f"{location}/{corpus_job.STAGE}")
    found = stage.settings_of(location, skipgram_job.STAGE)
    if found is None:
        return False
    wanted = {**training, "init": None, "inputs": header.fingerprint}
    for name, anything in (("cores", None), ("device", "auto")):
        if wanted.get(name) == anything:
            wanted.pop(name, None)
    shared = wanted.pop("negatives") == "shared"
    return all(found.get(name) == value for name, value in wanted.items()) and (found["keep"] > 1) == shared


def _sources(directory: str) -> list[Source] | None:
    """All files of walks; None if they are too many to be read here."""
    paths = walk_source.paths_in(directory)
    if len(paths) > MOST_FOOTERS:
        return None
    with ThreadPoolExecutor(16) as threads:
        return walk_source.numbered(paths, list(threads.map(walk_source.Footer(directory), paths)))

"""Streams of a corpus that lies on no disk of this host: fetched once an episode, whoever reads them how often.

In an episode a stream is read in every round. Where the corpus is on a local file system it is mapped in place. From
any other a file is copied into a directory of this host, under the corpus' fingerprint, and mapped there; the copies of
other episodes are removed, so that no more than one episode of the corpus lies on a host. A copy is written under
another name and renamed when complete: one that is there is whole, and two processes that fetch the same leave one
file. Where there is no room, the file is read where it is.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress

from pyarrow import fs

from node2vec import corpus_files
from node2vec.token_streams import Stream
from sparkdl.errors import ConfigError

CHUNK_BYTES = 8 << 20


def read_stream(files: fs.FileSystem, folder: str, episode: int, part: int, fingerprint: str, local: str) -> Stream:
    """The stream of a part in an episode of the corpus in `folder`, read-only.

    fingerprint: the corpus'; local: a directory of this host, made if missing, that other processes may share.
    Raises ConfigError: as ``corpus_files.read_stream``.
    """
    name = corpus_files.stream_name(episode, part)
    source = f"{folder}/{name}"
    if isinstance(files, fs.LocalFileSystem):
        return corpus_files.read_stream(files, source)
    home = os.path.join(local, f"corpus-{corpus_files.FORMAT}-{fingerprint}")
    this = os.path.join(home, f"{episode:05d}")
    copy = os.path.join(this, name)
    with suppress(OSError, ConfigError):  # no room; or others have gone on to the next episode and removed it
        if not os.path.isfile(copy):
            os.makedirs(this, exist_ok=True)
            _remove_others(home, this)
            _fetch(files, source, copy)
        return corpus_files.read_stream(fs.LocalFileSystem(), copy)
    return corpus_files.read_stream(files, source)


def _fetch(files: fs.FileSystem, source: str, copy: str) -> None:
    """Raises OSError: it cannot be read, or there is no room for it."""
    aside = f"{copy}.{uuid.uuid4().hex}"
    try:
        with files.open_input_stream(source, compression=None) as remote, open(aside, "wb") as target:
            shutil.copyfileobj(remote, target, CHUNK_BYTES)
        os.rename(aside, copy)
    finally:
        with suppress(FileNotFoundError):
            os.remove(aside)


def _remove_others(home: str, this: str) -> None:
    for entry in os.scandir(home):
        if entry.path != this:
            shutil.rmtree(entry.path, ignore_errors=True)

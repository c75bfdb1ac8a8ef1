"""The manifest of a stage: what its directory was made with, and whether it is complete.

A stage owns ``root/<stage>``. :func:`begin` empties it and writes ``_manifest.json``; the stage writes its files and,
last, its marker. A directory without its marker does not count. What broke off is removed when the stage begins again;
if the stage says how it is cut into files, those of the same settings and the same cut stay, for each is whole.
Settings are what JSON can hold; the fingerprint of the inputs is one of them, under the name ``inputs``.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pyarrow import fs

from node2vec.graph_files import file_system, replaced
from sparkdl.errors import ConfigError

MANIFEST = "_manifest.json"
MARKER = "_SUCCESS"
_CUT = "cut"  # a name in the manifest that is no setting


def done(root: str | os.PathLike[str], stage: str, settings: dict[str, Any], marker: str = MARKER) -> bool:
    """Whether ``root/<stage>`` is complete and was made with these settings.

    Raises ConfigError: it is complete, but was made with other settings or from other inputs.
    """
    files, folder = file_system(root)
    directory = f"{folder}/{stage}"
    found = _manifest(files, directory)
    if found is None or not _exists(files, f"{directory}/{marker}"):
        return False
    wanted = _plain(settings)
    found.pop(_CUT, None)
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ConfigError(_refusal(f"{os.fspath(root)}/{stage}", name, found.get(name), wanted.get(name)))
    return True


def begin(
    root: str | os.PathLike[str], stage: str, settings: dict[str, Any], marker: str = MARKER, cut: str | None = None
) -> frozenset[str]:
    """Make ``root/<stage>`` a directory with a manifest, ready for the stage's files; returns the names of those there.

    What an unfinished run left there is removed, but files (``part-...``) of the same settings and the same `cut`,
    which says how the stage's result is cut into files, are whole and stay. Raises ConfigError: the directory holds a
    finished stage, or files that no stage wrote.
    """
    files, folder = file_system(root)
    directory = f"{folder}/{stage}"
    files.create_dir(directory, recursive=True)
    others = [info.base_name for info in files.get_file_info(fs.FileSelector(directory))]
    if marker in others:
        raise ConfigError(f"{os.fspath(root)}/{stage} is finished already; use another root, or remove it.")
    if others and MANIFEST not in others:
        raise ConfigError(
            f"{os.fspath(root)}/{stage} holds {min(others)}, which would be deleted, and no {MANIFEST}: "
            "no stage has made it. Use another root, or remove it."
        )
    manifest = _plain({**settings, **({} if cut is None else {_CUT: cut})})
    if cut is not None and _manifest(files, directory) == manifest:
        return frozenset(name for name in others if name.startswith("part-"))
    files.delete_dir_contents(directory)
    with replaced(files, f"{directory}/{MANIFEST}") as stream:
        stream.write(json.dumps(manifest, indent=1).encode())
    return frozenset()


def settings_of(root: str | os.PathLike[str], stage: str, marker: str = MARKER) -> dict[str, Any] | None:
    """What a complete stage was made with; None if it is not there or not complete."""
    files, folder = file_system(root)
    found = _manifest(files, f"{folder}/{stage}")
    if found is None or not _exists(files, f"{folder}/{stage}/{marker}"):
        return None
    found.pop(_CUT, None)
    return found


def finish(root: str | os.PathLike[str], stage: str, marker: str = MARKER) -> None:
    """Write the marker: from here on the stage counts as done."""
    files, folder = file_system(root)
    with replaced(files, f"{folder}/{stage}/{marker}"):
        pass


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As they come back from JSON: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _manifest(files: fs.FileSystem, directory: str) -> dict[str, Any] | None:
    path = f"{directory}/{MANIFEST}"
    if not _exists(files, path):
        return None
    with files.open_input_stream(path) as stream:
        found: dict[str, Any] = json.loads(stream.read())
    return found


def _exists(files: fs.FileSystem, path: str) -> bool:
    return bool(files.get_file_info(path).type == fs.FileType.File)


def _refusal(directory: str, name: str, found: object, wanted: object) -> str:
    remedy = "Use another root, or remove the directory."
    if name == "inputs":
        return f"{directory} was made from other inputs (fingerprint {found}, now {wanted}). {remedy}"
    return f"{directory} was made with {name}={found!r}, this run has {name}={wanted!r}. {remedy}"

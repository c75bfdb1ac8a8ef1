"""Files wherever Spark can write (HDFS, S3A, GCS, local), through Hadoop's own FileSystem on the driver.

Contents never pass through py4j: files travel between a local directory and Hadoop's paths inside the JVM. A path
without a scheme is on the cluster's default file system, as it is for Spark itself.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark import SparkContext

from sparkdl.spark_failures import FAILURES, failure_text, first_line
from sparkdl.spark_internals import hadoop


class HadoopFiles:
    """Every method raises OSError, with the file system's own words, when it cannot do it."""

    def __init__(self, sc: SparkContext):
        self._hadoop, self._configuration = hadoop(sc)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory."""
        with _as_os_error(path):
            place, files = self._open(path)
            return bool(files.exists(place))

    def list(self, path: str) -> dict[str, int | None]:
        """Names in a directory, sorted, and their sizes in bytes; None: a directory. Empty if there is none."""
        with _as_os_error(path):
            place, files = self._open(path)
            if not files.exists(place):
                return {}
            found = [(s.getPath().getName(), s.isDirectory(), s.getLen()) for s in files.listStatus(place)]
        return {str(name): None if is_directory else int(size) for name, is_directory, size in sorted(found)}

    def tree(self, path: str) -> dict[str, int]:
        """All files below a directory, by their path in it, and their sizes."""
        found: dict[str, int] = {}
        for name, size in self.list(path).items():
            if size is None:
                found |= {f"{name}/{inner}": length for inner, length in self.tree(f"{path}/{name}").items()}
            else:
                found[name] = size
        return found

    def make_directory(self, path: str) -> None:
        """Makes a directory and those above it; one that is there is no error."""
        with _as_os_error(path):
            place, files = self._open(path)
            if not files.mkdirs(place):
                raise OSError("it could not be made")

    def delete(self, path: str) -> None:
        """Deletes a file, or a directory with all in it; one that is not there is no error."""
        with _as_os_error(path):
            place, files = self._open(path)
            if files.exists(place) and not files.delete(place, True) and files.exists(place):
                raise OSError("it could not be deleted")

    def upload(self, local: str, path: str) -> None:
        """Copies a local file to ``path``, over what is there."""
        with _as_os_error(path):
            place, files = self._open(path)
            files.copyFromLocalFile(False, True, self._local(local), place)

    def download(self, path: str, local: str) -> None:
        """Copies a file to a local path."""
        with _as_os_error(path):
            place, files = self._open(path)
            files.copyToLocalFile(False, place, self._local(local), True)  # without a checksum file beside it

    def write_text(self, path: str, text: str) -> None:
        """A small file, whole or not at all where the file system can rename."""
        with tempfile.TemporaryDirectory(prefix="sparkdl-") as directory:
            local = os.path.join(directory, "text")
            with open(local, "w", encoding="utf-8") as file:
                file.write(text)
            parent, _, name = path.rpartition("/")
            aside = f"{parent}/.{name}-{uuid.uuid4().hex}"
            self.upload(local, aside)
            with _as_os_error(path):
                place, files = self._open(path)
                files.delete(place, False)  # HDFS renames over nothing
                if not files.rename(self._hadoop.fs.Path(aside), place):
                    raise OSError("it could not be written")

    def read_text(self, path: str) -> str:
        """A small file."""
        with self.local_copy(path) as local, open(local, encoding="utf-8") as file:
            return file.read()

    @contextmanager
    def local_copy(self, path: str) -> Iterator[str]:
        """A local path of a file: its own if it is local, else that of a copy, which goes when the block ends."""
        with _as_os_error(path):
            place, files = self._open(path)
            whole = files.makeQualified(place).toUri()
        if whole.getScheme() == "file":
            yield str(whole.getPath())
            return
        with tempfile.TemporaryDirectory(prefix="sparkdl-") as directory:
            local = os.path.join(directory, path.rpartition("/")[2])
            self.download(path, local)
            yield local

    def _open(self, path: str) -> tuple[Any, Any]:
        place = self._hadoop.fs.Path(path)
        return place, place.getFileSystem(self._configuration)

    def _local(self, path: str) -> Any:
        return self._hadoop.fs.Path(f"file://{os.path.abspath(path)}")


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise OSError(f"{path}: {first_line(failure_text(error))}") from error
    except OSError as error:
        raise OSError(f"{path}: {error}") from error

"""Saving and loading of the stages, alone or inside Spark's own Pipeline, PipelineModel and CrossValidator.

A stage is a directory on any file system that Spark reaches, laid out as Spark's own stages are:

    metadata/             Spark's JSON: class, uid, Params; Params that are no JSON as `recipes` has them
    model.safetensors     the weights, or shards of them (`saved_model`)
    history.safetensors   the training's history, of a model
    pickled.bin           only with trust=True: what has no recipe, by cloudpickle

The metadata are written last: a stage without them cannot be loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import cloudpickle
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
from torch import nn

from sparkdl import recipes, saved_model
from sparkdl.checkpoint_job import take_model
from sparkdl.errors import ConfigError
from sparkdl.hadoop_files import HadoopFiles
from sparkdl.history import History
from sparkdl.stored_arrays import Kind

if TYPE_CHECKING:
    from sparkdl.ml.models import Fitted

__all__ = ["Saved", "StageReader", "StageWriter", "trusted"]

FORMAT = 1
HISTORY, PICKLED = "history.safetensors", "pickled.bin"
_PUBLIC = "sparkdl.ml"  # where saved classes are looked for, whatever module they are in

_trusting: ContextVar[bool] = ContextVar("sparkdl.ml.trusted", default=False)


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Inside, stages may be pickled when they are saved and unpickled when they are loaded; for whole pipelines.

    Unpickling runs whatever code a file holds. ``with trusted(): PipelineModel.load(path)``
    """
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


class Saved(MLWritable, MLReadable[Any]):
    """Can be saved and loaded, inside a Pipeline too."""

    def write(self) -> StageWriter:
        """The writer: ``write().overwrite().save(path)``."""
        return StageWriter(self)

    def save(self, path: str, trust: bool = False) -> None:
        """Saves the stage. trust: what cannot be described may be pickled; loading it then asks for trust as well.

        Raises ConfigError: there is something already, or a part of the stage can neither be described nor may be
        pickled.
        """
        with trusted() if trust else contextlib.nullcontext():
            self.write().save(path)

    @classmethod
    def read(cls) -> StageReader:
        """The reader."""
        return StageReader(cls)

    @classmethod
    def load(cls, path: str, trust: bool = False) -> Any:
        """The stage that was saved. trust: what was pickled may be unpickled, which runs whatever code it holds.

        Raises ConfigError: it is another stage, damaged, needs a module that cannot be imported, or needs trust.
        """
        with trusted() if trust else contextlib.nullcontext():
            return cls.read().load(path)


class StageWriter(MLWriter):
    """Writes one stage."""

    def __init__(self, stage: Any):
        super().__init__()
        self._stage = stage

    def save(self, path: str) -> None:
        """See :meth:`Saved.save`; with ``overwrite()``, over what is there."""
        if not self.shouldOverwrite and HadoopFiles(self.sc).exists(path):
            raise ConfigError(f"there is something at {path} already; write().overwrite().save(path) replaces it")
        self._found = self._contents()  # what cannot be saved shows before anything is removed
        super().save(path)

    def saveImpl(self, path: str) -> None:
        """Writes the files, the metadata last."""
        extra, params, module, aside = self._found
        files = HadoopFiles(self.sc)
        fitted: Fitted | None = getattr(self._stage, "_fitted", None)
        files.make_directory(path)
        with tempfile.TemporaryDirectory(prefix="sparkdl-") as directory:
            names = [] if module is None else saved_model.write_model(module, directory)
            if fitted is not None and fitted.history is not None:
                saved_model.write_arrays(fitted.history.to_arrays(), os.path.join(directory, HISTORY))
                names.append(HISTORY)
            if aside:
                with open(os.path.join(directory, PICKLED), "wb") as file:
                    cloudpickle.dump(aside, file)
                names.append(PICKLED)
            for name in names:
                files.upload(os.path.join(directory, name), f"{path}/{name}")
        DefaultParamsWriter.saveMetadata(self._stage, path, self.sc, {**extra, "files": names}, params)

    def _contents(self) -> tuple[dict[str, Any], dict[str, Any], nn.Module | None, recipes.Aside | None]:
        """Extra metadata, Params, the module whose weights are saved, and what is pickled."""
        stage = self._stage
        aside: recipes.Aside | None = {} if _trusting.get() else None
        fitted: Fitted | None = getattr(stage, "_fitted", None)
        extra: dict[str, Any] = {"class": f"{_PUBLIC}.{type(stage).__name__}", "format": FORMAT}
        module: nn.Module | None = None
        params = {}
        for param, value in stage._paramMap.items():
            if param.name == "model":
                module = value if isinstance(value, nn.Module) else None
                params["model"] = _described_model(value, aside)
            else:
                params[param.name] = recipes.described(value, param.name, aside)
        if fitted is not None:
            module = fitted.module
            extra["fitted"] = {
                "model": _described_model(module if fitted.factory is None else fitted.factory, aside),
                "seed": fitted.seed,
                "kinds": [list(kind) for kind in fitted.kinds],
                "row_shape": list(fitted.row_shape),
                "num_classes": fitted.num_classes,
                "scale": fitted.scale,
            }
            if fitted.history is not None:
                extra["fitted"]["history"] = {
                    "fingerprint": fitted.history.fingerprint,
                    "settings": fitted.history.settings,
                }
        return extra, params, module, aside


def _described_model(value: Any, aside: recipes.Aside | None) -> Any:
    if value is None or isinstance(value, nn.Module):
        return recipes.described(value, "model", aside, weights_apart=True)
    return recipes.described_factory(value, aside)


class StageReader(MLReader[Any]):
    """Reads one stage."""

    def __init__(self, kind: type[Any]):
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> Any:
        """See :meth:`Saved.load`."""
        files = HadoopFiles(self.sc)
        if not files.exists(f"{path}/metadata/_SUCCESS"):
            raise ConfigError(f"there is no saved stage at {path}, or its writer was stopped before the end")
        metadata = DefaultParamsReader.loadMetadata(path, self.sc)
        stage = self._stage(path, metadata)
        aside = self._pickled(files, path, metadata["files"])
        for name, value in metadata["defaultParamMap"].items():
            if stage.hasParam(name):
                stage._setDefault(**{name: value})
        for name, value in metadata["paramMap"].items():
            stage.setParams(**{name: recipes.rebuilt(value, aside)})
        stage._resetUid(metadata["uid"])
        if "fitted" in metadata:
            stage._fitted = self._fitted(files, path, metadata, aside)
        elif isinstance(model := stage._value("model"), nn.Module):
            self._load_weights(files, path, metadata["files"], model)
        return stage

    def _stage(self, path: str, metadata: Mapping[str, Any]) -> Any:
        """A new stage of the class that was saved."""
        package, _, name = metadata["class"].rpartition(".")
        kind = getattr(importlib.import_module(_PUBLIC), name, None) if package == _PUBLIC else None
        if not (isinstance(kind, type) and issubclass(kind, self._kind)):
            raise ConfigError(
                f"{path} holds a {metadata['class']}, no {self._kind.__name__}; load it with its own class"
            )
        if metadata["format"] > FORMAT:
            raise ConfigError(
                f"{path} has format {metadata['format']}, this sparkdl reads format {FORMAT}; use the version that "
                "wrote it"
            )
        return kind()

    def _pickled(self, files: HadoopFiles, path: str, names: list[str]) -> dict[str, Any] | None:
        """What was pickled, if it may be unpickled; None also where a later sentence says that it may not."""
        if PICKLED not in names or not _trusting.get():
            return None
        with files.local_copy(f"{path}/{PICKLED}") as local, open(local, "rb") as file:
            found: dict[str, Any] = cloudpickle.load(file)
        return found

    def _fitted(
        self, files: HadoopFiles, path: str, metadata: Mapping[str, Any], aside: Mapping[str, Any] | None
    ) -> Fitted:
        from sparkdl.ml.models import Fitted

        found = metadata["fitted"]
        made = recipes.rebuilt(found["model"], aside)
        module = recipes.module_of(made, found["seed"], check="pickled" not in found["model"])
        self._load_weights(files, path, metadata["files"], module)
        history = None
        if "history" in found:
            with files.local_copy(f"{path}/{HISTORY}") as local:
                history = History.from_arrays(saved_model.read_arrays(local))
            history.fingerprint, history.settings = found["history"]["fingerprint"], found["history"]["settings"]
        return Fitted(
            module=module,
            factory=None if made is module else made,
            seed=found["seed"],
            kinds=tuple(Kind(dtype, tuple(shape), sparse) for dtype, shape, sparse in found["kinds"]),
            row_shape=tuple(found["row_shape"]),
            num_classes=found["num_classes"],
            scale=found["scale"],
            history=history,
        )

    def _load_weights(self, files: HadoopFiles, path: str, names: list[str], module: nn.Module) -> None:
        try:
            take_model(files, path, names, module)
        except OSError as error:
            raise ConfigError(f"the weights in {path} cannot be read: {error}") from error

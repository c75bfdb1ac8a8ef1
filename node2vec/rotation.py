"""What a task of skip-gram's rotation does in a round of groups: tables in, blocks trained, tables out.

Tables come in from the task before (``table_pieces``), from the executor's disk (``resident_tables``), from the stage's
folder (``table_files``), or, at the beginning, from the seed. They go out the same ways, and in the last round as the
result. The driver's half is ``skipgram_job``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from pyspark import TaskContext

from node2vec import block_schedule, resident_tables, stream_copies, table_files, table_pieces, training_device
from node2vec.corpus_job import counts_of
from node2vec.graph_files import file_system
from node2vec.host_directory import host_directory
from node2vec.table_pieces import Blob, Tables
from sparkdl import spark_conf, worker_heap

if TYPE_CHECKING:
    from node2vec.block_schedule import Round
    from node2vec.block_training import Training
    from node2vec.token_streams import Stream

PIECE_BYTES = 2 << 20


class Rotation:
    """What a task of a round runs; its number comes with the tables, so all rounds but the first share one object.

    corpus, fingerprint: the corpus' folder, and which one it is. output: the stage's folder. every: rounds after which
    tables are written there. resident: under which name the executors keep inputs; None: they are sent, too. begin: the
    round, if it is one that begins from files, or, at 0, from the seed.
    """

    def __init__(
        self,
        training: Training,
        corpus: str,
        fingerprint: str,
        output: str,
        every: int,
        resident: str | None = None,
        begin: int | None = None,
    ):
        self.training, self.corpus, self.fingerprint, self.output = training, corpus, fingerprint, output
        self.every, self.resident, self.begin = every, resident, begin
        self.pieces = table_pieces.pieces_of(training, PIECE_BYTES)

    @property
    def received(self) -> int:
        """Blobs that a task is sent in a round."""
        return (1 if self.resident else 2) * self.training.cores * self.pieces.number

    def beginning(self, number: int) -> Rotation:
        """The round that begins from files, or, at 0, from the seed."""
        about = (self.training, self.corpus, self.fingerprint, self.output, self.every, self.resident)
        return Rotation(*about, begin=number)

    def __call__(self, split: int, blobs: Iterable[bytes]) -> Iterator[tuple[int, Blob]]:
        """The work of task `split`: a ``spark_shuffles.Send``. Raises StateLost: a resident table is not there."""
        from node2vec import block_training

        training = self.training
        number, inputs, outputs = self._tables(split, blobs)
        this = training.group_round(number)
        centres, contexts = ([self._stream(this.episode, part) for part in some] for some in (inputs, outputs))
        block_training.train_group(
            training,
            this,
            split,
            list(inputs.values()),
            list(outputs.values()),
            centres,
            contexts,
            [counts_of(self.corpus, self.fingerprint, part) for part in outputs],
            spark_conf.usable_cores(),
            training_device.local(training.device, split, _gpus()),
        )
        worker_heap.set_apart()
        yield from self._send(split, this, inputs, outputs)

    def _stream(self, episode: int, part: int) -> Stream:
        files, folder = file_system(self.corpus)
        return stream_copies.read_stream(files, folder, episode, part, self.fingerprint, host_directory())

    def _tables(self, split: int, blobs: Iterable[bytes]) -> tuple[int, Tables, Tables]:
        """The number of the round, and the tables that this task trains in it. Raises StateLost."""
        training = self.training
        if self.begin is not None:
            return (self.begin, *self._begun(split, training.group_round(self.begin)))
        stays = self.resident is not None
        number, inputs, outputs = table_pieces.received(training, self.pieces, split, blobs, stays)
        if self.resident is not None:
            for part in block_schedule.parts_of(split, training.cores):
                size = block_schedule.part_size(training.num_nodes, part, training.num_parts)
                inputs[part] = resident_tables.read(self.resident, number, part, (size, training.dimensions))
        return number, inputs, outputs

    def _begun(self, split: int, this: Round) -> tuple[Tables, Tables]:
        """Tables from files, or from the seed."""
        from node2vec import skipgram

        training = self.training
        own, others = table_pieces.parts_met(training, this, split)
        if this.number:
            return table_files.read_tables(self.output, this.number, own, others)
        inputs: Tables = {}
        for part in own:
            inputs[part] = skipgram.initial_inputs(
                training.num_nodes, training.dimensions, training.seed, part, training.num_parts
            )
            table_files.put_old_rows(self.output, part, inputs[part])
        sizes = {part: block_schedule.part_size(training.num_nodes, part, training.num_parts) for part in others}
        return inputs, {part: np.zeros((size, training.dimensions), np.float32) for part, size in sizes.items()}

    def _send(self, split: int, this: Round, inputs: Tables, outputs: Tables) -> Iterator[tuple[int, Blob]]:
        training, after = self.training, this.number + 1
        if after == training.num_group_rounds:
            for part, table in inputs.items():
                counts = counts_of(self.corpus, self.fingerprint, part)
                rows = np.flatnonzero(counts)  # a node that no walk holds has no vector
                index = np.asarray(block_schedule.id_of(part, rows, training.num_parts), np.int32)
                table_files.write_vectors(self.output, part, index, table[rows])
            return
        if after % self.every == 0:
            table_files.write_tables(self.output, after, inputs, outputs)
            return
        if self.resident is not None:
            resident_tables.write(self.resident, after, inputs)
        else:
            for part, table in inputs.items():
                yield from table_pieces.cut(self.pieces, split, (table_pieces.IN, after, part), table)
        met = block_schedule.output_part(split, this, training.num_groups)
        to = block_schedule.next_holder(met, this, training.num_groups, training.num_episodes)
        for part, table in outputs.items():
            yield from table_pieces.cut(self.pieces, to, (table_pieces.OUT, after, part), table)


def _gpus() -> list[str] | None:
    """The GPUs that Spark gave this task, by their addresses."""
    context = TaskContext.get()
    given = context.resources().get("gpu") if context else None
    return None if given is None else list(given.addresses)


class Removal:
    """A superstep that removes an executor's resident tables, and sends nothing."""

    def __init__(self, resident: str):
        self.resident = resident

    def __call__(self, split: int, blobs: Iterable[bytes]) -> Iterator[tuple[int, Blob]]:
        """Run on the executor that keeps token `split`."""
        resident_tables.remove(self.resident)
        return iter(())

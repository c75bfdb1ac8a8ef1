from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from node2vec import block_schedule, block_training, corpus_files, corpus_job, resident_tables, rotation, table_files
from node2vec.graph_files import file_system
from node2vec.rotation import Removal, Rotation
from sparkdl.errors import StateLost
from tests.node2vec.test_block_training import NUM_NODES, Corpus, corpus, random_walks, training


def save(folder: Path, data: Corpus) -> None:
    files, home = file_system(folder)
    folder.mkdir()
    for episode, streams in enumerate(data.streams):
        for part, stream in enumerate(streams):
            corpus_files.write_stream(files, f"{home}/{corpus_files.stream_name(episode, part)}", stream)
    for part, counts in enumerate(data.counts):
        corpus_files.write_counts(files, f"{home}/{corpus_job.counts_name(part, 0)}", counts)


def play(later: Rotation, again: bool = False) -> None:
    """All rounds as the driver and Spark play them; with `again` every task runs twice."""
    tasks = range(later.training.num_groups)
    received: list[list[bytes]] = [[] for _ in tasks]
    begun = 0
    for number in range(later.training.num_group_rounds):
        task: Any = later if number > begun else later.beginning(number)
        sent: list[list[bytes]] = [[] for _ in tasks]
        for split in tasks:
            assert number == begun or len(received[split]) == later.received
            if again:
                list(task(split, received[split]))
            for to, blob in task(split, received[split]):
                sent[to].insert(0, b"".join(bytes(buffer) for buffer in blob))
        received = sent
        if (number + 1) % later.every == 0 and number + 1 < later.training.num_group_rounds:
            assert not any(sent)
            table_files.complete(later.output, number + 1)
            begun = number + 1


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("resident", [None, "run-0"])
@pytest.mark.parametrize(("num_parts", "cores"), [(1, 1), (3, 1), (4, 2), (2, 2)])
def test_tasks_make_what_the_twin_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_parts: int, cores: int, resident: str | None, again: bool
) -> None:
    monkeypatch.setattr(rotation, "PIECE_BYTES", 100)
    monkeypatch.setenv(resident_tables.LOCAL_DIRS, str(tmp_path / "local"))
    data, run = corpus(random_walks(), num_parts, 4), training(num_parts, 4, cores=cores)
    save(tmp_path / "corpus", data)
    output = tmp_path / "vectors"
    output.mkdir()
    # a name of its own, since workers keep counts by it
    play(Rotation(run, str(tmp_path / "corpus"), str(tmp_path), str(output), 3, resident), again)
    found = np.full((NUM_NODES, 8), np.nan, np.float32)
    for part in range(num_parts):
        table = pq.read_table(output / f"part-{part:05d}.parquet")
        assert set(table["index"].to_pylist()) <= set(run.ids_of(part).tolist())
        found[table["index"].to_numpy()] = np.array(table["vector"].to_pylist(), np.float32)
    wanted = block_training.train(run, data.streams, data.counts)
    seen = ~np.isnan(found[:, 0])
    assert seen.sum() > NUM_NODES // 2
    assert found[seen].tobytes() == wanted[seen].tobytes()
    kept = list((tmp_path / "local").rglob("*.f32"))
    assert bool(kept) == (resident is not None)
    for part in range(num_parts):
        assert sum(f"in-{part:05d}" in path.name for path in kept) <= 2
    if resident:
        assert list(Removal(resident)(0, [])) == []
        assert list((tmp_path / "local").rglob("*")) == []


def test_a_task_elsewhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = corpus(random_walks(), 2, 2), training(2, 2)
    save(tmp_path / "corpus", data)
    later = Rotation(run, str(tmp_path / "corpus"), str(tmp_path), str(tmp_path), 16, "run-0")
    monkeypatch.setenv(resident_tables.LOCAL_DIRS, str(tmp_path / "here"))
    blobs = [blob for split in range(2) for blob in later.beginning(0)(split, [])]
    for_one = [b"".join(bytes(buffer) for buffer in blob) for to, blob in blobs if to == 1]
    first = list(later(1, for_one))
    assert len(first) == later.received
    monkeypatch.setenv(resident_tables.LOCAL_DIRS, str(tmp_path / "there"))
    with pytest.raises(StateLost, match="version 1 of the inputs of part 1"):
        list(later(1, for_one))
    assert block_schedule.output_part(1, run.group_round(1), 2) == 0

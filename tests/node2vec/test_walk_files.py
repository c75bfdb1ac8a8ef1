from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node2vec import walk_files
from node2vec.graph_files import file_system

Walks = list[list[int]]
WALKS = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6), max_size=12)


def kernel_arrays(walks: Walks, walk_length: int = 6) -> tuple[np.ndarray, np.ndarray]:
    made = np.full((len(walks), walk_length), -1, np.int32)
    for row, walk in enumerate(walks):
        made[row, : len(walk)] = walk
    return made, np.array([len(walk) for walk in walks], np.int32)


def lists(walks: Walks) -> pa.ListArray:
    return pa.array(walks, pa.list_(pa.int32()))


@given(WALKS)
def test_tails_are_cut_off(walks: Walks) -> None:
    assert walk_files.batch_of(*kernel_arrays(walks)).column(0).to_pylist() == walks


def test_full_walks_are_not_copied() -> None:
    made, lengths = kernel_arrays([[1, 2], [3, 4]], 2)
    nodes = walk_files.batch_of(made, lengths).column(0).values.to_numpy()
    assert np.shares_memory(nodes, made)


@given(WALKS, WALKS)
def test_written_and_read_back(tmp_path_factory: pytest.TempPathFactory, first: Walks, second: Walks) -> None:
    folder = tmp_path_factory.mktemp("walks")
    files, path = file_system(folder)
    batches = [walk_files.batch_of(*kernel_arrays(walks)) for walks in (first, second)]
    walk_files.write(files, f"{path}/{walk_files.part_name(1)}", batches)
    walk_files.write(files, f"{path}/{walk_files.part_name(0)}", batches[1:])
    (folder / "_SUCCESS").touch()
    found = [walk for batch in walk_files.read(folder) for walk in batch.to_pylist()]
    assert found == second + first + second  # by the files' names


def test_what_others_find_in_a_file(tmp_path: Path) -> None:
    files, path = file_system(tmp_path)
    batch = walk_files.batch_of(*kernel_arrays([[5, 6, 7], [8]]))
    walk_files.write(files, f"{path}/part-00000.parquet", [batch, batch])
    assert [walk.tolist() for walk in pd.read_parquet(tmp_path)["walk"]] == [[5, 6, 7], [8]] * 2
    about = pq.ParquetFile(tmp_path / "part-00000.parquet").metadata
    assert about.num_row_groups == 2  # one a batch
    column = about.row_group(0).column(0)
    assert (column.compression, column.path_in_schema, column.statistics) == ("ZSTD", "walk.list.element", None)
    assert not any("DICTIONARY" in encoding for encoding in column.encodings)


def test_the_same_walks_make_the_same_bytes(tmp_path: Path) -> None:
    files, path = file_system(tmp_path)
    for name in ("a", "b"):
        walk_files.write(files, f"{path}/{name}", [walk_files.batch_of(*kernel_arrays([[1, 2, 3], [4]]))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    files, path = file_system(tmp_path)

    def broken() -> object:
        yield walk_files.batch_of(*kernel_arrays([[1, 2]]))
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        walk_files.write(files, f"{path}/part-00000.parquet", broken())
    assert list(tmp_path.iterdir()) == []


@given(WALKS, st.randoms(use_true_random=False), st.integers(0, 12))
def test_the_hash_ignores_order_and_cuts(walks: Walks, random: object, border: int) -> None:
    shuffled = list(walks)
    random.shuffle(shuffled)
    whole = walk_files.walks_hash([lists(walks)])
    assert walk_files.walks_hash([lists(shuffled[:border]), lists(shuffled[border:])]) == whole
    assert walk_files.walks_hash([lists([[9], *shuffled]).slice(1)]) == whole


@given(st.sets(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=2, max_size=40))
def test_different_walks_have_different_hashes(walks: set[tuple[int, ...]]) -> None:
    """Other nodes, another order, another length; and the same walk twice counts twice."""
    hashes = {walk_files.walks_hash([lists([list(walk)])]) for walk in walks}
    assert len(hashes) == len(walks)
    one = [list(min(walks))]
    assert walk_files.walks_hash([lists(one * 2)]) not in {walk_files.walks_hash([lists(one)]), 0}

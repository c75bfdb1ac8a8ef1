from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from node2vec import walk_source


def save(folder: Path, name: str, lists: list[list[int]], row_group_size: int = 2) -> None:
    table = pa.table({"walk": pa.array(lists, pa.list_(pa.int32()))})
    pq.write_table(table, folder / name, row_group_size=row_group_size)


def test_walks_are_numbered_over_files_and_row_groups(tmp_path: Path) -> None:
    files = {
        "part-00001.parquet": [[4], [5, 6], [7, 8, 9]],
        "part-00000.parquet": [[1, 2, 3]],
        "part-00002.parquet": [],
    }
    for name, lists in files.items():
        save(tmp_path, name, lists)
    save(tmp_path, "other.parquet", [[0]])
    (tmp_path / "_SUCCESS").touch()
    paths = walk_source.paths_in(str(tmp_path))
    assert [Path(path).name for path in paths] == sorted(files)
    sources = walk_source.numbered(paths, list(map(walk_source.Footer(str(tmp_path)), paths)))
    assert [source[1:] for source in sources] == [(0, 1, 3), (1, 3, 6), (4, 0, 0)]
    found = {}
    for source in sources:
        for first, nodes, offsets in walk_source.walks_of(str(tmp_path), source):
            for number in range(len(offsets) - 1):
                found[first + number] = nodes[offsets[number] : offsets[number + 1]].tolist()
    assert found == {0: [1, 2, 3], 1: [4], 2: [5, 6], 3: [7, 8, 9]}

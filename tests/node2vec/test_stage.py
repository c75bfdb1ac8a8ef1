from __future__ import annotations

import json
from pathlib import Path

import pytest

from node2vec import stage
from sparkdl.errors import ConfigError

SETTINGS = {"p": 0.5, "shape": (1, 2), "max_degree": None, "inputs": "abc"}


def test_a_stage_counts_from_its_marker_on(tmp_path: Path) -> None:
    assert not stage.done(tmp_path, "walks", SETTINGS)
    stage.begin(tmp_path, "walks", SETTINGS)
    (tmp_path / "walks" / "data").write_bytes(b"1")
    assert not stage.done(tmp_path, "walks", SETTINGS)
    stage.finish(tmp_path, "walks")
    assert stage.done(tmp_path, "walks", SETTINGS)
    assert stage.done(tmp_path.as_uri(), "walks", SETTINGS)
    assert not stage.done(tmp_path, "graph", SETTINGS)
    assert sorted(path.name for path in (tmp_path / "walks").iterdir()) == ["_SUCCESS", "_manifest.json", "data"]
    assert json.loads((tmp_path / "walks" / "_manifest.json").read_text())["shape"] == [1, 2]


def test_a_marker_of_its_own(tmp_path: Path) -> None:
    stage.begin(tmp_path, "graph", SETTINGS, "graph.json")
    (tmp_path / "graph" / "graph.json").write_text("{}")
    assert stage.done(tmp_path, "graph", SETTINGS, "graph.json")
    assert not stage.done(tmp_path, "graph", SETTINGS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"p": 1}, r"walks was made with p=0\.5, this run has p=1\. Use another root"),
        ({"shape": (1, 3)}, r"made with shape=\[1, 2\], this run has shape=\[1, 3\]"),
        ({"q": 2}, "made with q=None, this run has q=2"),
        ({"inputs": "def"}, r"made from other inputs \(fingerprint abc, now def\)"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    stage.begin(tmp_path, "walks", SETTINGS)
    assert not stage.done(tmp_path, "walks", SETTINGS | change)  # unfinished: whoever comes may begin anew
    stage.finish(tmp_path, "walks")
    with pytest.raises(ConfigError, match=sentence):
        stage.done(tmp_path, "walks", SETTINGS | change)


def test_a_setting_that_this_run_lacks_is_named(tmp_path: Path) -> None:
    stage.begin(tmp_path, "walks", SETTINGS)
    stage.finish(tmp_path, "walks")
    with pytest.raises(ConfigError, match=r"made with p=0\.5, this run has p=None"):
        stage.done(tmp_path, "walks", {name: value for name, value in SETTINGS.items() if name != "p"})


def test_whole_files_of_the_same_cut_stay(tmp_path: Path) -> None:
    def begin(**changes: object) -> frozenset[str]:
        names = stage.begin(tmp_path, "walks", SETTINGS | changes, cut=cut)
        (tmp_path / "walks" / "part-00001.parquet").write_bytes(b"1")
        (tmp_path / "walks" / ".part-00002.aside").write_bytes(b"1")
        return names

    cut: str | None = "3 files"
    assert begin() == frozenset()
    assert begin() == {"part-00001.parquet"}
    assert begin(p=1) == frozenset()
    assert begin() == frozenset()
    cut = "4 files"
    assert begin() == frozenset()
    cut = None
    assert begin() == frozenset()
    assert begin() == frozenset()
    stage.begin(tmp_path, "walks", SETTINGS, cut="3 files")
    stage.finish(tmp_path, "walks")
    assert stage.done(tmp_path, "walks", SETTINGS)


def test_beginning_removes_what_broke_off_and_nothing_else(tmp_path: Path) -> None:
    stage.begin(tmp_path, "walks", SETTINGS)
    (tmp_path / "walks" / "half").write_bytes(b"1")
    stage.begin(tmp_path, "walks", SETTINGS | {"p": 2})
    assert [path.name for path in (tmp_path / "walks").iterdir()] == ["_manifest.json"]
    stage.finish(tmp_path, "walks")
    with pytest.raises(ConfigError, match="walks is finished already"):
        stage.begin(tmp_path, "walks", SETTINGS)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"home holds thesis\.txt, which would be deleted"):
        stage.begin(tmp_path, "home", SETTINGS)
    assert (tmp_path / "home" / "thesis.txt").exists()

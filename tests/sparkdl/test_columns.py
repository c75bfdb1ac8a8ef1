"""Columns: the trainer's spelling, what each becomes as tensors, and what is refused in which words."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from sparkdl.columns import Columns
from sparkdl.sparse_rows import SparseRows

BATCH = {
    "a": np.array([1.0, 2.0], dtype=np.float32),
    "b": np.array([3, 4]),
    "x": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float32),
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "bytes": np.array([[7, 8], [9, 10]], dtype=np.uint8),
    "w": np.array([1, 3]),
    "y": np.array([0, 1]),
}

# --- the spelling ---


def test_a_name_is_one_input() -> None:
    for spelling in ("x", ["x"], ("x",)):
        columns = Columns.parse(spelling)
        positional, keyword = columns.inputs(BATCH)
        assert len(positional) == 1
        assert keyword == {}
        assert torch.equal(positional[0], torch.tensor(BATCH["x"]))


def test_a_list_is_positional_inputs() -> None:
    positional, _ = Columns.parse(["b", "x"]).inputs(BATCH)
    assert [tuple(tensor.shape) for tensor in positional] == [(2,), (2, 3)]
    assert [tensor.dtype for tensor in positional] == [torch.int64, torch.float32]


def test_a_nested_list_is_stacked() -> None:
    positional, _ = Columns.parse([["a", "b"], ["y"]]).inputs(BATCH)
    assert positional[0].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert positional[0].dtype == torch.float32
    assert positional[1].tolist() == [[0], [1]]
    assert positional[1].dtype == torch.int64


def test_scalars_and_arrays_are_stacked_on_axis_1() -> None:
    positional, _ = Columns.parse([["b", "x", "bytes"], ["bytes"]]).inputs(BATCH)
    assert positional[0].tolist() == [[3, 1, 2, 3, 7, 8], [4, 4, 5, 6, 9, 10]]
    assert positional[0].dtype == torch.float32
    assert positional[1].dtype == torch.uint8
    mixed, _ = Columns.parse([["b", "bytes"]]).inputs(BATCH)
    assert mixed[0].dtype == torch.int64


def test_a_dict_is_keyword_inputs() -> None:
    positional, keyword = Columns.parse({"ids": "b", "dense": ["a", "x"]}).inputs(BATCH)
    assert positional == ()
    assert list(keyword) == ["ids", "dense"]
    assert keyword["ids"].tolist() == [3, 4]
    assert tuple(keyword["dense"].shape) == (2, 4)


def test_names_are_in_order_without_repeats() -> None:
    columns = Columns.parse({"u": ["a", "b"], "v": "a", "w": "x"}, ["y", "x"], "a")
    assert columns.names == ["a", "b", "x", "y"]
    assert columns.feature_names == ["a", "b", "x"]


def test_targets() -> None:
    assert Columns.parse("x").target(BATCH) is None
    for spelling in ("y", ["y"]):
        target = Columns.parse("x", spelling).target(BATCH)
        assert isinstance(target, torch.Tensor)
        assert target.tolist() == [0, 1]
    targets = Columns.parse("x", ["y", "a"]).target(BATCH)
    assert isinstance(targets, tuple)
    assert [tensor.tolist() for tensor in targets] == [[0, 1], [1.0, 2.0]]


def test_weights() -> None:
    assert Columns.parse("x").weight(BATCH) is None
    weight = Columns.parse("x", "y", "w").weight(BATCH)
    assert weight is not None
    assert weight.tolist() == [1.0, 3.0]
    assert weight.dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"weight_col: column 'x' holds arrays of shape \(3,\), but a row has one weight"
    ):
        Columns.parse("x", "y", "x").weight(BATCH)


def test_tensors_never_write_through_to_stored_columns() -> None:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored.flags.writeable = False
    columns = Columns.parse("x", "x")
    (tensor,), _ = columns.inputs({"x": stored})
    tensor.zero_()
    assert stored[1, 2] == 5
    picked = {"x": stored[np.array([1])]}
    (tensor,), _ = columns.inputs(picked)
    target = columns.target(picked)
    tensor.zero_()
    assert isinstance(target, torch.Tensor)
    assert target.tolist() == [[3.0, 4.0, 5.0]]


def test_tensors_are_contiguous() -> None:
    (tensor,), _ = Columns.parse("x").inputs({"x": np.ones((4, 3), dtype=np.float32).T})
    assert tensor.is_contiguous()


@pytest.mark.parametrize("spelling", ["x", ["a", "b"], [["a", "b"], ["x"]], {"ids": ["a", "b"], "x": "x"}])
def test_columns_are_pickled_and_compared_by_value(spelling: Any) -> None:
    columns = Columns.parse(spelling, ["y"], "w")
    assert pickle.loads(pickle.dumps(columns)) == columns
    assert hash(columns) == hash(Columns.parse(spelling, ["y"], "w"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "feature_cols is empty: the model needs at least one input"),
        (({},), "feature_cols is empty: the model needs at least one input"),
        (("",), "feature_cols holds an empty name"),
        ((["a", []],), "feature_cols holds an empty list"),
        ((["a", 3],), "feature_cols holds 3 where a column's name or a list of names is expected"),
        (([["a", 3]],), "feature_cols holds 3 where a column's name is expected"),
        ((3,), "feature_cols is 3: pass a column's name"),
        ((["a", "a"],), "feature_cols names 'a' twice in one list"),
        (([["a", "b", "a"]],), "feature_cols names 'a' twice in one list"),
        (({"ids": ["a", "a"]},), r"feature_cols\['ids'\] names 'a' twice in one list"),
        (({3: "a"},), "feature_cols holds 3 where a column's name is expected"),
        (("x", []), "label_col holds an empty list"),
        (("x", ["y", "y"]), "label_col names 'y' twice in one list"),
        (("x", 3), "label_col holds 3 where a column's name or a list of names is expected"),
        (("x", "y", ["w"]), r"weight_col holds \['w'\] where a column's name is expected"),
    ],
)
def test_wrong_spellings_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns.parse(*arguments)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    batch = {"image": BATCH["image"], "x": BATCH["x"]}
    with pytest.raises(ValueError, match=r"these are 'image' \(3, 4\), 'x' \(3,\)\. Make them separate inputs"):
        Columns.parse([["image", "x"]]).inputs(batch)


# --- transforms, and sparse columns ---


def test_transforms_are_part_of_the_columns() -> None:
    columns = Columns.parse(["x", "v"], "y", "w", {"x": len, "v": "sparse", "y": float})
    assert dict(columns.transforms) == {"x": len, "v": "sparse", "y": float}
    features = columns.without_targets()
    assert (features.names, dict(features.transforms)) == (["x", "v"], {"x": len, "v": "sparse"})


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"image": len}, "transform names 'image', which is none of the columns in use; did you mean 'images'"),
        ({"z": len}, "transform names 'z', .* these are 'images', 'y'"),
        ({"images": "dense"}, r"transform\['images'\] is 'dense': pass a function of one row's value"),
        ({"y": "sparse"}, r"transform\['y'\] is 'sparse', which only inputs can be"),
        (len, "transform is <built-in function len>: pass a dict"),
    ],
)
def test_wrong_transforms_are_refused(transform: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Columns.parse("images", "y", transform=transform)


def test_sparse_columns_are_sparse_tensors() -> None:
    dense = np.array([[0, 1, 0], [2, 0, 0]], np.float32)
    batch = BATCH | {"v": SparseRows.of_dense(dense)}
    (alone, joined), _ = Columns.parse(["v", ["a", "v", "x"]]).inputs(batch)
    assert torch.equal(alone.to_dense(), torch.from_numpy(dense))
    assert joined.is_sparse
    assert joined.to_dense().tolist() == [[1, 0, 1, 0, 1, 2, 3], [2, 2, 0, 0, 4, 5, 6]]
    with pytest.raises(ValueError, match=r"column 'image' holds arrays of shape \(3, 4\) and is joined with a sparse"):
        Columns.parse([["image", "v"]]).inputs(batch)
    target = Columns.parse("v", "v").target(batch)  # an autoencoder
    assert isinstance(target, torch.Tensor)
    assert target.tolist() == dense.tolist()

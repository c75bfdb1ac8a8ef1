"""Each error can be caught as sparkdl's own and as the builtin it resembles, and crosses processes."""

from __future__ import annotations

import pickle

import pytest

from sparkdl import errors


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.ClusterError, RuntimeError),
        (errors.TrainingError, RuntimeError),
        (errors.StateLost, RuntimeError),
    ],
)
def test_an_error_is_ours_and_a_builtin_and_pickles(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, errors.SparkDLError)
    assert issubclass(kind, builtin)
    error = pickle.loads(pickle.dumps(kind("a sentence")))
    assert type(error) is kind
    assert str(error) == "a sentence"

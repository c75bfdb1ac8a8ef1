"""The exceptions of sparkdl. Each also is the builtin exception it resembles, so plain ``except ValueError`` works."""

from __future__ import annotations


class SparkDLError(Exception):
    """Whatever sparkdl itself raises."""


class ConfigError(SparkDLError, ValueError):
    """An argument or the data given by the user cannot be used; nothing has been started."""


class ClusterError(SparkDLError, RuntimeError):
    """The cluster's state keeps the run from going on (different versions, no executors, lost for good)."""


class TrainingError(SparkDLError, RuntimeError):
    """User code (model, loss, metric, ``step_fn``) failed in a task; carries the task's own traceback."""


class StateLost(SparkDLError, RuntimeError):
    """A task did not find the version of state that its step needs.

    Raised inside tasks. The driver takes it, like a lost block, as the sign to go back to the last snapshot; a user
    sees it only when that failed several times in a row.
    """

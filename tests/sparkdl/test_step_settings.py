"""Settings survive the local property; the plan counts rows and contributors as the batches do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkdl import batches
from sparkdl.step_settings import JobSettings, Plan, StepSettings

law = settings(deadline=None, max_examples=40, print_blob=True)  # machines may be busy

numbers = st.floats(allow_nan=False) | st.booleans() | st.integers(-(2**40), 2**40)
hypers = st.lists(
    st.dictionaries(st.sampled_from(["lr", "betas", "nesterov"]), numbers | st.lists(numbers, min_size=1)), max_size=3
)
counts = st.integers(0, 2**40)
steps = st.builds(StepSettings, counts, counts, counts, hypers)


@law
@given(
    st.builds(
        JobSettings, st.sampled_from(["step", "snapshot"]), counts, st.lists(steps, max_size=3), st.none() | steps
    )
)
def test_loads_is_the_inverse_of_dumps(job: JobSettings) -> None:
    assert JobSettings.loads(job.dumps()) == job


def test_numbers_keep_their_bits() -> None:
    job = JobSettings("step", 1, [StepSettings(0, 0, 0, [{"lr": 0.1 + 0.2}])], clip=1 / 3)
    back = JobSettings.loads(job.dumps())
    assert back.steps[0].hyper[0]["lr"] == 0.1 + 0.2
    assert back.clip == 1 / 3


@law
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any), st.integers(1, 50), st.integers(0, 9))
def test_a_plan_counts_as_the_batches_do(rows_per_replica: list[int], batch_size: int, epoch: int) -> None:
    plan = Plan("run", 3, batch_size, tuple(rows_per_replica), ((0, 1),))
    assert plan.num_replicas == len(rows_per_replica)
    assert plan.num_rows == sum(rows_per_replica)
    assert plan.steps_per_epoch == batches.num_steps(plan.num_rows, batch_size)
    seen = 0
    for index in range(plan.steps_per_epoch):
        current = StepSettings(epoch * plan.steps_per_epoch + index, epoch, index, [])
        rows = [plan.rows(current, replica) for replica in range(plan.num_replicas)]
        assert sum(map(len, rows)) == plan.rows_in_step(index)
        assert plan.contributors(index) == tuple(r for r, found in enumerate(rows) if len(found))
        seen += plan.rows_in_step(index)
    assert seen == plan.num_rows

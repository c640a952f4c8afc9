"""What the tasks of every DAG have in common."""

from datetime import timedelta
from typing import Any


def task_defaults(
    *, retries: int, retry_delay: timedelta, execution_timeout: timedelta
) -> dict[str, Any]:
    """Return `default_args` of a DAG: its owner, and tries further and further apart.

    Parameters
    ----------
    retries : int
        Tries after the first.
    retry_delay : timedelta
        Before the second try; it grows to a minute.
    execution_timeout : timedelta
        Of one try of a task.
    """
    return {
        "owner": "flead",
        "retries": retries,
        "retry_delay": retry_delay,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=1),
        "execution_timeout": execution_timeout,
    }

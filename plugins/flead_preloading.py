"""Has the scheduler load what its tasks need."""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from flead_airflow.preloading import preload


class FleadPreloading(AirflowPlugin):
    """Runs before the scheduler starts the processes that its tasks are forked from."""

    name = "flead_preloading"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Load it."""
        preload()

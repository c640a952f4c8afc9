"""Who is told when a task of the health gate fails."""

import logging
from importlib import import_module

from airflow.sdk import BaseNotifier, Context

from flead.settings import Settings

logger = logging.getLogger(__name__)


class LogNotifier(BaseNotifier):
    """Write what has failed, and why, to the log of the task."""

    def notify(self, context: Context) -> None:
        """Write one line."""
        task = context["ti"]
        logger.error(
            "%s.%s of run %s failed: %s",
            task.dag_id,
            task.task_id,
            task.run_id,
            context.get("exception"),
        )


def health_notifier(settings: Settings) -> BaseNotifier:
    """Make the notifier that the settings name.

    Raises
    ------
    ValueError
        Names the setting that is wrong.
    """
    module, _, name = settings.health_notifier.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"FLEAD_HEALTH_NOTIFIER={settings.health_notifier}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        raise ValueError(
            f"FLEAD_HEALTH_NOTIFIER={settings.health_notifier} is no subclass of Airflow's"
            " BaseNotifier"
        )
    try:
        return kind(**settings.health_notifier_options)
    except TypeError as error:
        raise ValueError(f"FLEAD_HEALTH_NOTIFIER_OPTIONS do not fit {name}: {error}") from error

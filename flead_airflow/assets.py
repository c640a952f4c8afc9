"""What the DAGs make and wait for."""

from typing import Final

from airflow.sdk import Asset

GLOBAL_MODEL: Final = Asset(name="global-model", uri="flead://global-model", group="flead")
"""A promoted version; each event carries it as `version` in its extra."""

EVALUATION: Final = Asset(name="evaluation", uri="flead://evaluation", group="flead")
"""An evaluation; each event carries `evaluation_run_id` and `versions` in its extra."""

FEEDBACK: Final = Asset(name="feedback", uri="flead://feedback", group="flead")
"""Feedback that was released; each event carries the evaluation run's id in its extra."""

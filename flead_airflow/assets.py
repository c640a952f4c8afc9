"""What the DAGs make and wait for."""

from typing import Final

from airflow.sdk import Asset

GLOBAL_MODEL: Final = Asset(name="global-model", uri="flead://global-model", group="flead")
"""A promoted version; each event carries it as `version` in its extra."""

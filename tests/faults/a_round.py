"""What the tasks of `aggregation_round` do, in one process beside them."""

import os

from flead.rounds.aggregation import aggregate
from flead.rounds.opening import open_or_resume
from flead.rounds.publishing import publish
from flead.settings import Settings

url, kafka = os.environ["FLEAD_DATABASE_URL"], {"bootstrap.servers": os.environ["KAFKA"]}
settings = Settings.from_environment()
opened = open_or_resume(url, kafka, settings, dag_run_id=None)
if opened is not None:
    print(aggregate(url, settings, opened.number))
publish(url, kafka)

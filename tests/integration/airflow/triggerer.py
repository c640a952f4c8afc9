"""What Airflow's triggerer does with a trigger."""

import asyncio
import pkgutil

DATABASE_ID = 17
"""Of the trigger's row: a triggerer leaves it in every trigger, as `trigger_id`."""


def events_of(trigger, seconds=120):
    """Run a trigger to its end, which comes within so many seconds."""
    return asyncio.run(asyncio.wait_for(collect(trigger), seconds))


async def collect(trigger):
    """Run a trigger that is rebuilt from what is stored of it, with what is set on it.

    As `create_triggers` of airflow/jobs/triggerer_job_runner.py does (3.3.2).
    """
    path, arguments = trigger.serialize()
    rebuilt = pkgutil.resolve_name(path)(**arguments)
    rebuilt.trigger_id = DATABASE_ID
    rebuilt.triggerer_job_id = 1
    rebuilt.timeout_after = None
    return [event.payload async for event in rebuilt.run()]

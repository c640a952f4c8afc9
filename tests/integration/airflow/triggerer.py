"""What Airflow's triggerer does with a trigger."""

import asyncio
import pkgutil
import threading

DATABASE_ID = 17
"""Of the trigger's row: a triggerer leaves it in every trigger, as `trigger_id`."""


def events_of(trigger, seconds=120):
    """Run a trigger to its end, which comes within so many seconds."""
    return asyncio.run(asyncio.wait_for(collect(trigger), seconds))


def assert_loop_goes_on(monkeypatch, trigger, owner, blocking):
    """Run a trigger to its end; what blocks, of `owner`, answers once the event loop has gone on.

    A loop that is blocked by the call itself does not, so that no time has to be measured.
    """
    calls = 0
    ask = getattr(owner, blocking)

    async def watch():
        loop = asyncio.get_running_loop()

        def ask_beside_it(*args, **kwargs):
            nonlocal calls
            calls += 1
            gone_on = threading.Event()
            loop.call_soon_threadsafe(gone_on.set)
            assert gone_on.wait(60), f"{blocking} blocks the event loop"
            return ask(*args, **kwargs)

        monkeypatch.setattr(owner, blocking, ask_beside_it)
        return await collect(trigger)

    events = asyncio.run(asyncio.wait_for(watch(), 180))
    assert calls > 0
    return events


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

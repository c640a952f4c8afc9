"""The tasks that every deployment begins with."""

from airflow.sdk import task

from flead_airflow import connections


@task
def migrate() -> list[str]:
    """Bring the database to the newest schema."""
    from flead.storage.migrations import (  # noqa: PLC0415 - heavy, and a DAG imports us
        migrate as apply,
    )

    return apply(connections.servers().database_url)


@task
def create_topics() -> list[str]:
    """Create the topics that are missing."""
    from flead.messaging.topics import (  # noqa: PLC0415 - heavy, as above
        create_topics as create,
    )

    return create(connections.servers().kafka)

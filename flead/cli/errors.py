"""Errors that the user can act on, each as what is said of it."""

import sys
from collections.abc import Callable
from typing import Any


def _server(error: Any) -> str:
    """Name the server, which a connection error does not."""
    try:
        url = error.request.url
        where = f"{url.scheme}://{url.netloc.decode()}: "
    except RuntimeError:
        where = ""
    return f"{where}{error or type(error).__name__}; see `flead status`"


# By module and class: only a module that is loaded can have raised, so none is imported for this.
EXPLANATIONS: dict[tuple[str, str], Callable[[Any], str]] = {
    ("flead.stack.service", "StackError"): str,
    ("benchmarks.servers", "BenchmarkError"): str,
    ("flead.fleet.streaming", "StreamingError"): str,
    ("flead.messaging.topics", "TopicLayoutError"): str,
    ("flead.messaging.reading", "TopicRewoundError"): str,
    ("flead.analysis.evaluation", "UnusableModelError"): str,
    ("flead.contracts.dataspec", "DataSpecError"): str,
    ("flead.datasets.reading", "DatasetError"): str,
    ("builtins", "PermissionError"): lambda error: f"{error}; see `flead doctor`",
    ("msgspec", "ValidationError"): lambda error: f"a value is not valid: {error}",
    ("psycopg2", "OperationalError"): lambda error: f"PostgreSQL: {error}; see `flead status`",
    ("confluent_kafka", "KafkaException"): lambda error: (
        f"Kafka: {error.args[0].str()}; see `flead status`"
    ),
    ("httpx", "HTTPError"): _server,
}


def explanation(error: Exception) -> str | None:
    """Return what to tell the user of an error, None when it is a defect.

    It is one line, unless the stack itself wrote more, such as the end of a log.
    """
    for (module, name), explain in EXPLANATIONS.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            said = explain(error)
            return said if explain is str else " ".join(said.split())
    return None

"""JSON Schema of each topic's message; run as a module, it writes them to a folder."""

import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

import msgspec

from flead.contracts.messages import (
    Anomaly,
    DeadLetter,
    GlobalModel,
    LocalUpdate,
    ModelFeedback,
    Telemetry,
    TrainingControl,
)
from flead.contracts.topics import Topic

MESSAGE_OF: Final[dict[Topic, type[msgspec.Struct]]] = {
    Topic.TELEMETRY: Telemetry,
    Topic.TELEMETRY_DLQ: DeadLetter,
    Topic.LOCAL_UPDATES: LocalUpdate,
    Topic.LOCAL_UPDATES_DLQ: DeadLetter,
    Topic.GLOBAL_UPDATES: GlobalModel,
    Topic.GLOBAL_UPDATES_DLQ: DeadLetter,
    Topic.FEEDBACK: ModelFeedback,
    Topic.FEEDBACK_DLQ: DeadLetter,
    Topic.CONTROL: TrainingControl,
    Topic.CONTROL_DLQ: DeadLetter,
    Topic.ANOMALIES: Anomaly,
}
"""The type of every topic's messages."""


def topic_schema(topic: Topic) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the values of `topic`."""
    schema = msgspec.json.schema(MESSAGE_OF[topic])
    for definition in schema["$defs"].values():
        definition["description"] = cleandoc(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": topic.value,
    } | schema


def schema_file(topic: Topic) -> tuple[str, bytes]:
    """Return the name and the content of the file that documents `topic`."""
    content = msgspec.json.format(msgspec.json.encode(topic_schema(topic)), indent=2)
    return f"{topic.value}.json", content + b"\n"


def main(folder: Path) -> None:
    """Write the schema of every topic to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in map(schema_file, Topic):
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

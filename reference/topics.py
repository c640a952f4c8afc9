"""The page of topics and messages."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from flead.contracts.jsonschema import MESSAGE_OF, topic_schema
from flead.contracts.topics import LAYOUTS, Topic
from reference.json_types import describe
from reference.markdown import block, code, page, table

VECTOR = re.compile(r"\[[^\[\]{}]*\]")
EXAMPLES = Path(__file__).resolve().parents[1] / "tests" / "examples"
INTRODUCTION = """\
Values are JSON. Times are integer milliseconds since the epoch; arrays of a model (`weights`, the
moments) are in input order: for each feature its value, z-score, rolling mean and rolling
deviation. Keys are `device_id` unless the message names others. What does not validate goes to
`<topic>-dlq` as a [DeadLetter](#deadletter), and the job goes on."""


def topics_page() -> str:
    """Return the page: layout of each topic, then each message with its fields."""
    layouts = table(
        ("Topic", "Value", "JSON Schema", "Partitions", "Settings"), map(_layout, LAYOUTS)
    )
    definitions: dict[str, Any] = {}
    for topic in Topic:
        definitions |= topic_schema(topic)["$defs"]
    structs = {name: found for name, found in definitions.items() if "properties" in found}
    messages = [kind.__name__ for kind in dict.fromkeys(MESSAGE_OF.values())]
    parts = [name for name in structs if name not in messages]
    return page(
        "Topics and messages",
        "`flead.contracts`",
        INTRODUCTION,
        layouts,
        *(_message(name, definitions) for name in messages),
        "## Parts of messages",
        *(_struct(name, definitions, level=3) for name in parts),
    )


def _layout(layout: Any) -> tuple[str, ...]:
    message = MESSAGE_OF[layout.name].__name__
    settings = ", ".join(f"`{name}={value}`" for name, value in layout.config.items())
    schema = f"[schema](../schemas/{layout.name}.json)"
    link = f"[{message}](#{message.lower()})"
    return code(layout.name), link, schema, str(layout.partitions), settings


def _message(name: str, definitions: Mapping[str, Any]) -> str:
    topic = next(topic for topic, kind in MESSAGE_OF.items() if kind.__name__ == name)
    example = msgspec.json.decode((EXAMPLES / f"{topic}.json").read_bytes())
    shown = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
    # A vector on one line is what a reader can take in.
    shown = VECTOR.sub(lambda found: " ".join(found[0].split()), shown)
    parts = (_struct(name, definitions, level=2), "An example:", block("json", shown))
    return "\n\n".join(parts)


def _struct(name: str, definitions: Mapping[str, Any], *, level: int) -> str:
    struct = definitions[name]
    rows = [
        (code(field), describe(schema, definitions), _default(schema, field, struct))
        for field, schema in struct["properties"].items()
    ]
    fields = table(("Field", "Type", "When left out"), rows)
    return f"{'#' * level} {name}\n\n{struct['description']}\n\n{fields}"


def _default(schema: Mapping[str, Any], field: str, struct: Mapping[str, Any]) -> str:
    if field in struct.get("required", ()):
        return "refused"
    return code(msgspec.json.encode(schema["default"]).decode()) if "default" in schema else ""

"""The page of settings."""

import ast
import inspect
from itertools import pairwise
from typing import Any

import msgspec

from flead.settings import AT_LEAST_AS_LONG, JSON_SETTINGS, MODELS_VARIABLE, PREFIX, Settings
from flead.stack.home import CHECKOUT
from reference.json_types import describe
from reference.markdown import code, page, table

SECTIONS = {
    "Rounds": ("round_", "max_", "strategy", "global_models_"),
    "The gate and the way back": ("gate_", "rollback_"),
    "Jobs and their places": (
        "job_", "taskmanager_", "spark_", "archive_", "stream_", "batch_", "evaluation_script",
        "training_", "kubernetes_", "data_docs_", "web_libraries_",
    ),
    "Analyses": ("closing_", "analysis_"),
    "Evaluation": ("evaluation_", "feedback_"),
    "Tuning": ("tuning_",),
    "Health": ("health_", "healing_"),
    "Retention": ("retention_",),
}  # fmt: skip
"""Headings with the beginnings of names; the first that fits takes a setting."""
OTHERS = "Others"
INTRODUCTION = """\
Each is an environment variable. `bin/flead up` hands them to the servers that it starts, so set
them before; a running stack keeps what it was started with. On a cluster, set them for Airflow's
processes. A value of the wrong type or out of range is refused with its name. Durations end in
their unit."""
PLACES = """\
## Places

| Variable | Default | Is |
| --- | --- | --- |
| `FLEAD_HOME` | `.flead` in the checkout | everything that the embedded stack keeps |
| `FLEAD_ENVS`, `FLEAD_JARS` | `envs`, `jars` in `FLEAD_HOME` | what is installed; several homes may share them |
| `FLEAD_DATABASE_URL` | the embedded PostgreSQL | another database for FLEAD's tables, as `postgresql://USER:PASSWORD@HOST:PORT/NAME` |

Addresses and passwords of other servers are no settings: on a cluster they come from Airflow's connections ([README](../../README.md#on-a-cluster)), in the embedded stack they are chosen once and kept in `ports.json` and `secrets.json` of `FLEAD_HOME`."""  # noqa: E501 - lines of Markdown


def settings_page() -> str:
    """Return the page: variables by section with type, default and meaning."""
    meanings = docstrings(Settings)
    definitions = msgspec.json.schema(Settings)["$defs"]
    properties = definitions[Settings.__name__]["properties"]
    sections: dict[str, list[tuple[str, ...]]] = {}
    for name, schema in properties.items():
        row = (
            code(variable(name)),
            _type(name, schema, definitions),
            code(_default(schema)),
            meanings.get(name, ""),
        )
        sections.setdefault(_section(name), []).append(row)
    order = [title for title in (*SECTIONS, OTHERS) if title in sections]
    tables = [
        f"## {title}\n\n{table(('Variable', 'Type', 'Default', 'Is'), sections[title])}"
        for title in order
    ]
    relations = "\n".join(
        f"* `{variable(longer)}` is at least `{variable(shorter)}`."
        for shorter, longer in AT_LEAST_AS_LONG
    )
    return page(
        "Settings",
        "`flead/settings.py`",
        INTRODUCTION,
        PLACES,
        *tables,
        f"## What has to fit together\n\n{relations}",
    )


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return MODELS_VARIABLE if name == "global_models_dir" else PREFIX + name.upper()


def docstrings(kind: type) -> dict[str, str]:
    """Return the text below each field of a class, on one line."""
    [definition] = ast.parse(inspect.getsource(kind)).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for field, after in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _section(name: str) -> str:
    # The longest beginning wins, so that `evaluation_script` is a place.
    fitting = [
        (len(beginning), title)
        for title, beginnings in SECTIONS.items()
        for beginning in beginnings
        if name.startswith(beginning)
    ]
    return max(fitting)[1] if fitting else OTHERS


def _type(name: str, schema: Any, definitions: Any) -> str:
    if name in JSON_SETTINGS:
        return "JSON object"
    return describe(schema, definitions)


def _default(schema: Any) -> str:
    value = schema["default"]
    # The path of this checkout is that of one machine.
    value = value.removeprefix(f"{CHECKOUT}/") if isinstance(value, str) else value
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

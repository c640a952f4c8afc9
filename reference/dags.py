"""The page of DAGs; run as a module by Airflow's environment, it prints the page."""

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reference.json_types import describe
from reference.markdown import code, codes, page, table

if TYPE_CHECKING:
    from airflow.sdk import DAG

INTRODUCTION = """\
What each DAG does, when it runs, what it can be told, and what to do about a failed task. Airflow
shows the same text on the DAG's page. `bin/flead open airflow` leads there; *Trigger* opens the
form of the Params."""


def dags_page(dags: "Iterable[DAG]") -> str:
    """Return the page: each DAG with schedule, tasks, Params and its own text."""
    ordered = sorted(dags, key=lambda dag: dag.dag_id)
    return page(
        "DAGs",
        "`dags/` in Airflow's environment",
        INTRODUCTION,
        *(_section(dag) for dag in ordered),
    )


def _section(dag: "DAG") -> str:
    facts = "\n".join(
        (
            f"* Runs: {schedule(dag)}",
            f"* Tasks, in their order: {codes(task.task_id for task in dag.topological_sort())}",
            f"* May take at most: {dag.dagrun_timeout}",
        )
    )
    parts = [f"## {dag.dag_id}", facts, _lowered(dag.doc_md or "")]
    if dag.params:
        rows = [_param(name, dag.params.get_param(name)) for name in dag.params]
        parts += ["### Params", table(("Param", "Type", "Default", "Is"), rows)]
    return "\n\n".join(parts)


def schedule(dag: "DAG") -> str:
    """Say when a DAG runs."""
    parts = [_assets(dag.timetable), _times(getattr(dag.timetable, "timetable", dag.timetable))]
    return " or ".join(part for part in parts if part) or "when triggered"


def _assets(timetable: Any) -> str:
    condition = getattr(timetable, "asset_condition", None)
    if condition is None:
        return ""
    return f"on an event of {codes(asset.uri.rstrip('/') for asset in condition.objects)}"


def _times(timetable: Any) -> str:
    kind = type(timetable).__name__
    if kind == "ContinuousTimetable":
        return "continuously"
    if "Delta" in kind:
        return f"every {timetable.delta}"
    return f"at {code(timetable.expression)} (UTC)" if "Cron" in kind else ""


def _param(name: str, param: Any) -> tuple[str, ...]:
    kinds = param.schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    described = " or ".join(describe(param.schema | {"type": kind}, {}) for kind in kinds)
    return code(name), described, code(json.dumps(param.value)), param.description


def _lowered(text: str) -> str:
    """Move the headings of a DAG's text below that of its section."""
    return re.sub(r"^(#+) ", r"#\1 ", text.strip(), flags=re.MULTILINE)


def main() -> None:
    """Print the page."""
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - its settings come first

    bag = DagBag()
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    sys.stdout.write(dags_page(bag.dags.values()))


if __name__ == "__main__":
    main()

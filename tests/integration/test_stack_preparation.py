"""Environments and jars are installed once, checked, and taken up again after an interruption."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from flead.stack import beam_patch, jars
from flead.stack.environments import (
    BOOTSTRAP,
    WEB,
    WEB_SOURCES,
    PreparationError,
    prepare_environment,
    web_libraries,
)
from flead.stack.home import CHECKOUT, Home
from flead.stack.service import StackError

SLF4J = "org.slf4j:slf4j-api:1.7.36"


@pytest.fixture
def home(tmp_path):
    return Home.from_environment({"FLEAD_HOME": str(tmp_path)})


def test_an_environment_is_prepared_once(home):
    said = []

    first = prepare_environment(home, BOOTSTRAP, said.append)
    again = prepare_environment(home, BOOTSTRAP, said.append)

    assert (first, again) == (True, False)
    assert said == ["preparing the bootstrap environment (once)"]
    uv = subprocess.run(
        [home.envs / BOOTSTRAP / "bin" / "uv", "--version"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert uv.stdout.startswith("uv 0.13.")


def test_an_interrupted_preparation_is_taken_up_again(home):
    # What `python -m venv` leaves when it is stopped before it installs pip.
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", home.envs / BOOTSTRAP], check=True
    )

    assert prepare_environment(home, BOOTSTRAP, lambda _line: None)
    assert (home.envs / BOOTSTRAP / "bin" / "uv").exists()


def test_what_pages_use_in_the_browser_comes_by_its_hashes_alone(home):
    # The Node of the tools installs it; making them anew here would take a minute.
    home.envs.mkdir(parents=True)
    (home.envs / "tools").symlink_to(Home.from_environment().envs / "tools")

    first = prepare_environment(home, WEB, lambda _line: None)
    again = prepare_environment(home, WEB, lambda _line: None)

    assert (first, again) == (True, False)
    assert (web_libraries(home) / "htmx.org" / "dist" / "htmx.min.js").exists()
    lock = json.loads((WEB_SOURCES / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert [name for name, package in packages.items() if "resolved" in package] == []


def test_a_python_without_ensurepip_is_told_what_to_install(home, monkeypatch):
    # The mark that a module cannot be imported, as in the python3 of Debian.
    monkeypatch.setitem(sys.modules, "ensurepip", None)

    with pytest.raises(PreparationError, match=r"apt install python3-venv.* and start again"):
        prepare_environment(home, BOOTSTRAP, lambda _line: None)


@pytest.mark.parametrize(
    ("variables", "environments"),
    [
        ((), ".flead/envs"),
        (("FLEAD_HOME=/home",), "/home/envs"),
        (("FLEAD_HOME=/home", "FLEAD_ENVS=/envs"), "/envs"),
    ],
)
def test_make_uses_the_environments_of_the_home(variables, environments):
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("FLEAD_")}

    planned = subprocess.run(
        ["make", "--dry-run", "format", *variables],  # noqa: S607 - whichever make is installed
        cwd=CHECKOUT,
        env=inherited,
        check=True,
        capture_output=True,
        text=True,
    )

    assert f"\n{environments}/tools/bin/ruff format\n" in planned.stdout


def test_a_ready_checkout_starts_its_command_without_a_word_of_preparation():
    started = subprocess.run(
        [CHECKOUT / "bin" / "flead", "--help"], check=False, capture_output=True, text=True
    )

    assert started.returncode == 0
    assert "Usage: flead" in started.stdout
    assert started.stderr == ""


def lock_of(tmp_path, monkeypatch, sha256):
    lock = tmp_path / "jars.lock"
    lock.write_text(f"tiny {SLF4J} {sha256}\n")
    monkeypatch.setattr(jars, "LOCK", lock)


def test_a_jar_is_fetched_once_and_a_stranger_is_removed(home, tmp_path, monkeypatch):
    (pinned,) = [jar for jar in jars.locked_jars("kafka") if jar.coordinates == SLF4J]
    lock_of(tmp_path, monkeypatch, pinned.sha256)
    folder = home.jars / "tiny"
    folder.mkdir(parents=True)
    (folder / "slf4j-api-1.0.jar").touch()

    first = jars.fetch_jars(home, "tiny", lambda _line: None)
    again = jars.fetch_jars(home, "tiny", lambda _line: None)

    assert (first, again) == (True, False)
    assert [file.name for file in folder.iterdir()] == ["slf4j-api-1.7.36.jar"]


def test_a_jar_with_another_hash_is_refused_and_not_kept(home, tmp_path, monkeypatch):
    lock_of(tmp_path, monkeypatch, "0" * 64)

    with pytest.raises(StackError, match=f"{SLF4J} has SHA-256 .* but jars.lock pins 0000"):
        jars.fetch_jars(home, "tiny", lambda _line: None)

    assert list((home.jars / "tiny").iterdir()) == []


def test_the_correction_of_beam_refuses_a_class_that_it_does_not_know():
    wheel = Home.from_environment().site_packages("flink") / "pyflink"
    with zipfile.ZipFile(next((wheel / "opt").glob("flink-python-*.jar"))) as jar:
        shipped = jar.read(beam_patch.CLASS)
    corrected = beam_patch.listen_on_the_given_address(shipped)

    assert len(corrected) > len(shipped)
    with pytest.raises(StackError, match="is not the known one"):
        beam_patch.listen_on_the_given_address(corrected)


def test_the_lock_pins_the_broker_and_the_connector():
    pinned = {jar.coordinates for name in ("kafka", "flink") for jar in jars.locked_jars(name)}

    assert "org.apache.kafka:kafka_2.13:4.3.1" in pinned
    assert "org.apache.kafka:kafka-clients:4.3.1" in pinned
    assert "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2" in pinned

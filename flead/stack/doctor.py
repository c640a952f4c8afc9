"""What is wrong with an embedded stack and its machine, and what to do about each finding."""

import difflib
import os
import stat
from collections.abc import Mapping

import msgspec
import psycopg2

from flead.federation.strategy import make_strategy
from flead.settings import PREFIX, Settings
from flead.stack import installation, machine
from flead.stack.environments import NAMES, is_complete
from flead.stack.findings import Finding, Verdict
from flead.stack.home import Home
from flead.stack.ports import Ports
from flead.stack.postgres import Placement, barred, data_elsewhere
from flead.stack.service import StackError
from flead.stack.status import ServiceStatus, stack_status

OUTSIDE_DATABASE = "FLEAD_DATABASE_URL"
PLACES = ("FLEAD_HOME", "FLEAD_ENVS", "FLEAD_JARS", OUTSIDE_DATABASE)
OTHERS_CAN = stat.S_IRWXG | stat.S_IRWXO
FIXES = {
    "unhealthy": "wait a little; then `flead logs {name}` says what is wrong",
    "restarting": "it dies and is started again: `flead logs {name}` says why",
    "failed": "`flead logs {name}` says why; `flead up` starts it again",
    "orphaned": "`flead up` takes it over, `flead down` ends it",
}


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings; the stack is well when none of them is wrong."""

    is_well: bool
    findings: list[Finding]


def diagnose(home: Home, environ: Mapping[str, str] = os.environ) -> Diagnosis:
    """Look at everything, and change nothing."""
    services, unreadable = _services(home)
    running = {each.name for each in services if each.state != "stopped"}
    findings = [
        machine.system(),
        machine.memory(is_running=bool(running)),
        machine.disk(home, is_installed=all(is_complete(home, name) for name in NAMES)),
        installation.versions(home),
        *installation.environments(home),
        *installation.jars(home),
        *home_findings(home),
        *unreadable,
        *settings_findings(environ),
    ]
    if services:
        findings += machine.taken_ports(home, Ports.of(home), running)
        findings += map(service_finding, services)
    if not running and not unreadable:
        fix = "`flead up` starts all, `flead demo` the whole loop"
        findings.append(Finding("services", "stack", Verdict.NOTE, "no server runs", fix))
    return Diagnosis(not any(each.verdict is Verdict.WRONG for each in findings), findings)


def _services(home: Home) -> tuple[list[ServiceStatus], list[Finding]]:
    """Return the state of each server, or why it cannot be known."""
    try:
        return (stack_status(home).services if home.ports_file.exists() else []), []
    except StackError as error:
        # A file of the home was edited.
        fix = "correct the file, or begin anew with `flead down --wipe`"
        return [], [Finding("home", "files", Verdict.WRONG, str(error), fix)]
    except OSError as error:
        return [], [Finding("home", "files", Verdict.WRONG, str(error), _ownership(home))]


def home_findings(home: Home) -> list[Finding]:
    """Judge who may do what with the folder of the stack."""
    if not home.root.exists():
        return [Finding("home", "folder", Verdict.NOTE, f"{home.root} is made by the first start")]
    owner = home.root.stat().st_uid
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        said = f"{home.root} belongs to user {owner} and cannot be written by user {os.geteuid()}"
        return [Finding("home", "folder", Verdict.WRONG, said, _ownership(home))]
    return [
        Finding("home", "folder", Verdict.OK, str(home.root)),
        *_secrets(home),
        _database_account(home),
    ]


def _ownership(home: Home) -> str:
    """Say how the home becomes this user's."""
    return f"`sudo chown -R {os.geteuid()} {home.root}`, or set FLEAD_HOME to a folder of yours"


def _secrets(home: Home) -> list[Finding]:
    if not home.secrets_file.exists():
        return []
    mode = stat.S_IMODE(home.secrets_file.stat().st_mode)
    if mode & OTHERS_CAN:
        said = f"{home.secrets_file} can be opened by others (mode {mode:o})"
        return [Finding("home", "secrets", Verdict.WRONG, said, f"`chmod 600 {home.secrets_file}`")]
    return [Finding("home", "secrets", Verdict.OK, "readable by you alone")]


def _database_account(home: Home) -> Finding:
    """Say as whom PostgreSQL runs, and whether that account reaches its files."""
    subject, place = "PostgreSQL's account", Placement.of(home)
    if (left := data_elsewhere(home, place)) is not None:
        said = f"its data are in {left}, but it now has to keep them in {place.data}"
        fix = f"`mv {left} {place.data}`, or let every account pass through the folders again"
        return Finding("home", subject, Verdict.WRONG, said, fix)
    if place.user is None:
        return Finding("home", subject, Verdict.OK, "yours, with its data in the home")
    if place.data.is_relative_to(home.root):
        said = f"`{place.user}`, for it refuses to run as root; can pass through to its data"
        return Finding("home", subject, Verdict.OK, said)
    closed = {*barred(home.data), *barred(home.site_packages("tools"))}
    folders = " ".join(map(str, sorted(closed)))
    said = f"`{place.user}` cannot pass through {folders}: its data are in {place.data.parent}"
    fix = f"nothing; to have them in the home, `chmod o+x {folders}` before the first start"
    return Finding("home", subject, Verdict.NOTE, said, fix)


def settings_findings(environ: Mapping[str, str]) -> list[Finding]:
    """Judge the variables that are meant for FLEAD, and the outside database if there is one."""
    found = [*_misspelt(environ), *_outside_database(environ)]
    try:
        settings = Settings.from_environment(environ)
        make_strategy(settings.strategy, settings.strategy_options)
    except msgspec.ValidationError as error:
        fix = "correct the variable; docs/reference/settings.md has them all"
        found.append(Finding("settings", "values", Verdict.WRONG, str(error), fix))
    else:
        found.append(Finding("settings", "values", Verdict.OK, "all valid"))
    return found


def _misspelt(environ: Mapping[str, str]) -> list[Finding]:
    known = {*PLACES, *(PREFIX + name.upper() for name in Settings.__struct_fields__)}
    findings = []
    for name in sorted(environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and name not in known and near:
            fix = f"did you mean {near[0]}?"
            said = f"{name} is set, and nothing reads it"
            findings.append(Finding("settings", name, Verdict.WRONG, said, fix))
    return findings


def _outside_database(environ: Mapping[str, str]) -> list[Finding]:
    url = environ.get(OUTSIDE_DATABASE)
    if not url:
        return []
    try:
        psycopg2.connect(url, connect_timeout=3).close()
    except psycopg2.Error as error:
        said = " ".join(str(error).split())
        fix = f"correct {OUTSIDE_DATABASE}, or unset it for the embedded database"
        return [Finding("settings", OUTSIDE_DATABASE, Verdict.WRONG, said, fix)]
    return [Finding("settings", OUTSIDE_DATABASE, Verdict.OK, "answers")]


def service_finding(service: ServiceStatus) -> Finding:
    """Judge a server by its state."""
    if service.state in FIXES:
        fix = FIXES[service.state].format(name=service.name)
        return Finding("services", service.name, Verdict.WRONG, service.state, fix)
    if service.state == "running":
        port = f" on port {service.port}" if service.port else ""
        return Finding("services", service.name, Verdict.OK, f"answers{port}")
    return Finding("services", service.name, Verdict.NOTE, service.state)

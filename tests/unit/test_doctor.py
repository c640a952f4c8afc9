"""What the doctor finds wrong, and that each fault comes with what to do about it."""

import socket

import psutil
import pytest

from flead.stack import installation, machine
from flead.stack.doctor import diagnose, home_findings, service_finding, settings_findings
from flead.stack.findings import Verdict
from flead.stack.home import Home
from flead.stack.jars import locked_jars
from flead.stack.ports import Ports
from flead.stack.postgres import barred
from flead.stack.status import ServiceStatus


@pytest.fixture
def home(tmp_path):
    return Home.from_environment({"FLEAD_HOME": str(tmp_path)})


def wrong(findings):
    return {each.subject: each for each in findings if each.verdict is Verdict.WRONG}


def test_nothing_is_wrong_where_nothing_was_prepared(home):
    before = list(home.root.iterdir())

    diagnosis = diagnose(home, {})

    # How much memory and disk is free is the machine's, not the test's.
    assert wrong(each for each in diagnosis.findings if each.area != "machine") == {}
    assert diagnosis.is_well == (not wrong(diagnosis.findings))
    assert "the next start" in next(
        each.fix for each in diagnosis.findings if each.subject == "environment airflow"
    )
    assert list(home.root.iterdir()) == before, "the doctor changes nothing"


@pytest.mark.parametrize(
    ("gigabytes", "is_running", "verdict"),
    [
        (4.4, False, "wrong"),
        (4.6, False, "note"),
        (7.4, False, "note"),
        (7.6, False, "ok"),
        (0.6, True, "ok"),
        (0.4, True, "wrong"),
    ],
)
def test_memory_is_judged_by_what_the_stack_takes(gigabytes, is_running, verdict):
    found = machine.judged_memory(gigabytes * 1e9, is_running=is_running)

    assert found.verdict == verdict
    assert (found.fix is not None) == (verdict != "ok")


def test_the_limit_of_a_container_counts_less_what_it_uses(tmp_path):
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("active_file 300\ninactive_file 200\n")

    assert machine.room_in_group(tmp_path) == 3200


@pytest.mark.parametrize("limit", ["max", None])
def test_a_group_without_a_limit_leaves_all_memory(tmp_path, limit):
    if limit:
        (tmp_path / "memory.current").write_text("1000\n")
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.stat").write_text("inactive_file 200\n")

    assert machine.room_in_group(tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("gigabytes", "is_installed", "verdict"),
    [(6.9, False, "wrong"), (7.1, False, "ok"), (2.1, True, "ok"), (1.9, True, "wrong")],
)
def test_disk_space_is_judged_by_what_is_still_to_come(tmp_path, gigabytes, is_installed, verdict):
    found = machine.judged_disk(gigabytes * 1e9, tmp_path, is_installed=is_installed)

    assert found.verdict == verdict


def test_a_taken_port_is_told_with_the_program_that_listens(home):
    with socket.socket() as listener:
        listener.bind((machine.HOST, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        ports = Ports(taken, 1, 1, 1, 1, 1, 1)

        found = wrong(machine.taken_ports(home, ports, running={"postgres"}))

    me = psutil.Process()
    assert found["kafka"].said.endswith(f" is taken by {me.name()}, process {me.pid}")
    assert str(home.ports_file) in found["kafka"].fix


def test_the_port_of_a_running_server_is_its_own(home):
    with socket.socket() as listener:
        listener.bind((machine.HOST, 0))
        listener.listen()
        ports = Ports(listener.getsockname()[1], 1, 1, 1, 1, 1, 1)

        assert "kafka" not in wrong(machine.taken_ports(home, ports, running={"kafka"}))


def test_a_jar_that_is_not_the_pinned_one_is_named(home):
    jar = home.jars / "flink" / locked_jars("flink")[0].file_name
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"cut short")

    found = wrong(installation.jars(home))["jars flink"]

    assert found.fix == f"`rm {jar}`, then `flead prepare`"


def test_an_environment_whose_python_is_gone_is_to_be_made_anew(home):
    python = home.python("airflow")
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3.11")

    found = wrong(installation.environments(home))["environment airflow"]

    assert found.fix == f"delete {home.envs / 'airflow'}, then `flead prepare`"


def test_the_environment_of_the_browser_needs_no_python(home):
    (home.envs / "web").mkdir(parents=True)

    assert "environment web" not in wrong(installation.environments(home))


def test_secrets_that_others_can_read_are_wrong(home):
    home.secrets_file.write_text("{}")
    home.secrets_file.chmod(0o644)

    assert wrong(home_findings(home))["secrets"].fix == f"`chmod 600 {home.secrets_file}`"


def test_a_file_of_the_home_that_was_spoilt_is_named(home):
    home.ports_file.write_text("not json")

    found = wrong(diagnose(home, {}).findings)["files"]

    assert str(home.ports_file) in found.said


def test_a_file_of_the_home_that_cannot_be_opened_is_named(home):
    home.ports_file.write_text("{}")
    # Root may open what is another user's, but no folder as a file.
    (home.run / "ports.lock").mkdir(parents=True)

    found = wrong(diagnose(home, {}).findings)["files"]

    assert str(home.run / "ports.lock") in found.said
    assert str(home.root) in found.fix


def test_folders_that_a_server_account_cannot_pass_are_named(tmp_path):
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)

    assert closed in barred(closed / "data" / "to come")
    assert closed / "data" not in barred(closed / "data")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROUND_SECONDS", "often", "round_seconds"),
        ("STRATEGY", "fedmax", "there is no strategy 'fedmax'"),
        ("STRATEGY_OPTIONS", '{"beta": 0.1}', "options of the strategy fedavg: "),
    ],
)
def test_a_wrong_value_of_a_setting_is_told(variable, value, said):
    found = wrong(settings_findings({f"FLEAD_{variable}": value}))["values"]

    assert said in found.said


def test_a_misspelt_setting_is_told_with_the_likely_one():
    found = wrong(settings_findings({"FLEAD_ROUND_SECOND": "10"}))["FLEAD_ROUND_SECOND"]

    assert found.fix == "did you mean FLEAD_ROUND_SECONDS?"


def test_a_variable_that_is_like_no_setting_is_left_alone():
    assert wrong(settings_findings({"FLEAD_SOMETHING_ELSE": "10"})) == {}


def test_an_outside_database_that_does_not_answer_is_told_without_its_password():
    url = "postgresql://flead:hidden@127.0.0.1:9/flead"

    found = wrong(settings_findings({"FLEAD_DATABASE_URL": url}))["FLEAD_DATABASE_URL"]

    assert "port 9 failed: Connection refused" in found.said
    assert "hidden" not in found.said


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("running", "ok"),
        ("starting", "note"),
        ("stopped", "note"),
        ("unhealthy", "wrong"),
        ("restarting", "wrong"),
        ("failed", "wrong"),
        ("orphaned", "wrong"),
    ],
)
def test_a_server_is_judged_by_its_state(state, verdict):
    found = service_finding(ServiceStatus("kafka", state, 20_001, 1, 1.0, 1, 1.0))

    assert found.verdict == verdict
    assert (found.fix is not None) == (verdict == "wrong")

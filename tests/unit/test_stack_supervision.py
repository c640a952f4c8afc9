"""What the supervisor inherits, and where it may be called."""

import os
import tempfile

import pytest

from flead.stack.home import Home
from flead.stack.lifecycle import inherited_variables, running_variables
from flead.stack.service import StackError
from flead.stack.supervision import Supervisor


@pytest.fixture
def home(tmp_path):
    """Return a home whose path is too long for a socket below it."""
    return Home.from_environment({"FLEAD_HOME": str(tmp_path / ("long" * 40))})


@pytest.fixture
def socket_folder(home, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Supervisor(home).socket.parent


def test_the_socket_of_a_long_path_is_in_the_temporary_folder(socket_folder, tmp_path):
    assert socket_folder.parent == tmp_path
    assert socket_folder.name.startswith(f"flead-{os.geteuid()}-")


def test_a_folder_of_its_own_is_taken(home, socket_folder):
    socket_folder.mkdir(mode=0o700)

    assert Supervisor(home).socket.parent == socket_folder


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(home, socket_folder, mode):
    socket_folder.mkdir()
    socket_folder.chmod(mode)

    with pytest.raises(StackError, match="is not a folder of yours with mode 0700"):
        Supervisor(home).start([], {})
    assert not Supervisor(home).is_running()


def test_a_link_to_a_private_folder_is_refused(home, socket_folder, tmp_path):
    (tmp_path / "private").mkdir(mode=0o700)
    socket_folder.symlink_to(tmp_path / "private")

    with pytest.raises(StackError, match="is not a folder of yours with mode 0700"):
        Supervisor(home).start([], {})


def test_no_proxy_comes_between_the_servers_of_one_machine():
    inherited = inherited_variables(
        {"http_proxy": "http://proxy:3128", "NO_PROXY": "a.example, 127.0.0.1", "no_proxy": "b"}
    )

    assert inherited == {
        "http_proxy": "http://proxy:3128",
        "NO_PROXY": "a.example,127.0.0.1,b,localhost",
        "no_proxy": "a.example,127.0.0.1,b,localhost",
    }


def test_variables_of_another_interpreter_are_not_inherited():
    inherited = inherited_variables({"PYTHONPATH": "/x", "AIRFLOW_HOME": "/y", "LANG": "C"})

    assert inherited == {"LANG": "C", "NO_PROXY": "127.0.0.1,localhost"} | {
        "no_proxy": "127.0.0.1,localhost"
    }


def test_a_running_supervisor_tells_what_its_services_inherit(tmp_path):
    home = Home.from_environment({"FLEAD_HOME": str(tmp_path)})
    supervisor = Supervisor(home)
    assert running_variables(home) == {}
    home.logs.mkdir()

    supervisor.start([], {"FLEAD_TUNING_TRIALS": "3"})
    try:
        assert running_variables(home)["FLEAD_TUNING_TRIALS"] == "3"
    finally:
        supervisor.shut_down()
    assert running_variables(home) == {}

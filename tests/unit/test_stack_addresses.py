"""Ports, secrets and addresses are chosen once."""

import json
import stat

import pytest

from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.home import CHECKOUT, Home
from flead.stack.ports import CANDIDATES, Ports
from flead.stack.service import StackError


@pytest.fixture
def home(tmp_path):
    return Home.from_environment({"FLEAD_HOME": str(tmp_path / "home")})


def test_the_default_home_is_in_the_checkout():
    assert Home.from_environment({}).root == CHECKOUT / ".flead"


def test_environments_and_jars_may_be_shared_by_homes(tmp_path):
    home = Home.from_environment({"FLEAD_HOME": "/elsewhere", "FLEAD_ENVS": str(tmp_path)})

    assert home.envs == tmp_path
    assert str(home.jars) == "/elsewhere/jars"


def test_ports_are_distinct_below_the_ephemeral_range_and_kept(home):
    ports = Ports.of(home)
    numbers = [getattr(ports, name) for name in Ports.__struct_fields__]

    assert len(set(numbers)) == 7
    assert all(20_000 <= number < 32_000 for number in numbers)
    assert CANDIDATES.stop <= 32_768
    assert Ports.of(home) == ports


def test_secrets_are_kept_in_a_file_that_only_its_user_can_read(home):
    credentials = Credentials.of(home)

    assert stat.S_IMODE(home.secrets_file.stat().st_mode) == 0o600
    assert Credentials.of(home) == credentials


@pytest.mark.parametrize("kind", [Credentials, Ports])
def test_a_field_of_a_later_version_is_added_once_and_the_others_stay(home, kind):
    file = {Credentials: home.secrets_file, Ports: home.ports_file}[kind]
    before = kind.of(home)
    stored = json.loads(file.read_text())
    removed = kind.__struct_fields__[-1]
    del stored[removed]
    file.write_text(json.dumps(stored | {"of_another_version": 1}))
    mode = stat.S_IMODE(file.stat().st_mode)

    completed = kind.of(home)

    assert kind.of(home) == completed
    kept = [name for name in kind.__struct_fields__ if name != removed]
    assert [getattr(completed, name) for name in kept] == [getattr(before, name) for name in kept]
    values = [getattr(completed, name) for name in kind.__struct_fields__]
    assert len(set(values)) == len(values)
    added = {removed: getattr(completed, removed)}
    assert json.loads(file.read_text()) == stored | {"of_another_version": 1} | added
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.parametrize("content", ['{"kafka": "many"}', "[]", "{"])
def test_an_edited_file_that_is_not_usable_is_named(home, content):
    Ports.of(home)
    home.ports_file.write_text(content)

    with pytest.raises(StackError, match=f"{home.ports_file} is not usable: .*; correct it"):
        Ports.of(home)


def test_two_homes_share_no_secret(tmp_path):
    first, second = (
        Credentials.of(Home.from_environment({"FLEAD_HOME": str(tmp_path / name)}))
        for name in ("first", "second")
    )

    assert all(
        getattr(first, name) != getattr(second, name) for name in Credentials.__struct_fields__
    )


def test_the_user_may_name_an_outside_database(home):
    outside = "postgresql://flead@database.example/flead"

    assert Addresses.of(home, {"FLEAD_DATABASE_URL": outside}).database_url == outside
    assert Addresses.of(home, {}).database_url.startswith("postgresql://flead:")


def test_no_password_is_in_the_repr(home):
    shown = repr(Addresses.of(home, {}))
    credentials = Credentials.of(home)

    assert all(getattr(credentials, name) not in shown for name in Credentials.__struct_fields__)

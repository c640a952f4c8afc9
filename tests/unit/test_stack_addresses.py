"""Ports, secrets and addresses are chosen once."""

import stat

import pytest

from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.home import CHECKOUT, Home
from flead.stack.ports import CANDIDATES, Ports


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

    assert len(set(numbers)) == 6
    assert all(20_000 <= number < 32_000 for number in numbers)
    assert CANDIDATES.stop <= 32_768
    assert Ports.of(home) == ports


def test_secrets_are_kept_in_a_file_that_only_its_user_can_read(home):
    credentials = Credentials.of(home)

    assert stat.S_IMODE(home.secrets_file.stat().st_mode) == 0o600
    assert Credentials.of(home) == credentials


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

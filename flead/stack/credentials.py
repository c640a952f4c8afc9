"""The generated passwords and keys of a stack, in a file that only its user can read."""

import base64
import os
import secrets

import msgspec

from flead.stack.choices import kept
from flead.stack.home import Home


def _password() -> str:
    return secrets.token_urlsafe(24)


def _key() -> str:
    return secrets.token_urlsafe(64)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


class Credentials(msgspec.Struct, frozen=True):
    """Every secret of a home. Passwords are URL-safe."""

    postgres_superuser: str = msgspec.field(default_factory=_password)
    postgres_airflow: str = msgspec.field(default_factory=_password)
    postgres_flead: str = msgspec.field(default_factory=_password)
    airflow_admin: str = msgspec.field(default_factory=_password)
    airflow_viewer: str = msgspec.field(default_factory=_password)
    airflow_fernet_key: str = msgspec.field(default_factory=_fernet_key)
    airflow_secret_key: str = msgspec.field(default_factory=_key)
    airflow_jwt_secret: str = msgspec.field(default_factory=_key)
    airflow_broker: str = msgspec.field(default_factory=_password)
    postgres_grafana: str = msgspec.field(default_factory=_password)
    grafana_admin: str = msgspec.field(default_factory=_password)

    @classmethod
    def of(cls, home: Home) -> "Credentials":
        """Return the secrets of a home; each is generated and stored when it is first needed.

        Raises
        ------
        StackError
            `secrets.json` was edited to something else.
        """
        generated = cls()
        return kept(
            cls,
            home.secrets_file,
            home.run / "secrets.lock",
            0o600,
            lambda name, _: getattr(generated, name),
        )

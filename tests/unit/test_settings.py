"""Settings come from the environment and are checked there."""

import msgspec
import pytest

from flead.settings import Settings


def test_variables_of_the_environment_set_what_they_name() -> None:
    settings = Settings.from_environment(
        {
            "FLEAD_ROUND_SECONDS": "2.5",
            "FLEAD_MAX_STALENESS": "3",
            "GLOBAL_MODELS_DIR": "elsewhere",
            "FLEAD_HOME": "is no setting",
        }
    )

    assert settings == Settings(round_seconds=2.5, max_staleness=3, global_models_dir="elsewhere")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FLEAD_ROUND_MIN_UPDATES", "many"), ("FLEAD_MAX_WAIT_SECONDS", "-1")],
)
def test_a_bad_value_is_an_error_that_names_the_setting(variable: str, value: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=variable.removeprefix("FLEAD_").lower()):
        Settings.from_environment({variable: value})

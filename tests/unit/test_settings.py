"""Settings come from the environment and are checked there."""

from pathlib import Path

import msgspec
import pytest

from flead.settings import Settings, TuningBounds


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


def test_the_training_script_is_that_of_the_checkout_unless_the_cluster_has_another() -> None:
    default = Path(Settings.from_environment({}).training_script)

    assert default == Path(__file__).parents[2] / "jobs" / "flink" / "local_training.py"
    assert default.is_file()
    elsewhere = Settings.from_environment({"FLEAD_TRAINING_SCRIPT": "/opt/flead/job.py"})
    assert elsewhere.training_script == "/opt/flead/job.py"


def test_options_and_bounds_are_json() -> None:
    settings = Settings.from_environment(
        {
            "FLEAD_STRATEGY_OPTIONS": '{"staleness_discount": 0.5}',
            "FLEAD_TUNING_BOUNDS": '{"learning_rate": [0.01, 0.1], "window_rows": [20, 40]}',
        }
    )

    assert settings.strategy_options == {"staleness_discount": 0.5}
    bounds = TuningBounds(learning_rate=(0.01, 0.1), window_rows=(20, 40))
    assert settings.tuning_bounds == bounds


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLEAD_ROUND_MIN_UPDATES", "many"),
        ("FLEAD_MAX_WAIT_SECONDS", "-1"),
        ("FLEAD_TUNING_TRIALS", "4"),
        ("FLEAD_RETENTION_MODELS_DAYS", "6"),
        ("FLEAD_RETENTION_EVALUATIONS_DAYS", "89"),
        ("FLEAD_TUNING_BOUNDS", '{"learning_rate": [0.2, 0.1]}'),
        ("FLEAD_TUNING_BOUNDS", '{"learning_rate": [0, 0.1]}'),
        ("FLEAD_TUNING_BOUNDS", '{"momentum": [0, 1]}'),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_setting(variable: str, value: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=variable.removeprefix("FLEAD_").lower()):
        Settings.from_environment({variable: value})


def test_a_setting_that_must_be_json_and_is_not_is_named() -> None:
    with pytest.raises(msgspec.ValidationError, match="FLEAD_STRATEGY_OPTIONS is no JSON"):
        Settings.from_environment({"FLEAD_STRATEGY_OPTIONS": "staleness_discount=0.5"})

"""Program arguments that Flink's PythonDriver would take for its own options."""

import pytest

from flead_airflow.flink.arguments import check_program_arguments


@pytest.mark.parametrize(
    "argument", ["--p", "--p=1", "-p", "--py", "--python", "-pyf", "--pyF", "--pyClient=x"]
)
def test_an_argument_that_abbreviates_a_driver_option_is_refused_by_name(argument):
    with pytest.raises(ValueError, match=f"'{argument}' abbreviates -"):
        check_program_arguments(["--training-config", "{}", argument, "1"])


def test_every_option_that_the_argument_could_mean_is_named():
    with pytest.raises(ValueError, match="'-pyr' abbreviates -pyreq of Flink's PythonDriver"):
        check_program_arguments(["-pyr"])
    with pytest.raises(ValueError, match="'--pyt' abbreviates --python of Flink's PythonDriver"):
        check_program_arguments(["--pyt"])
    with pytest.raises(ValueError, match="'--pya' abbreviates -pyarch of Flink's PythonDriver"):
        check_program_arguments(["--pya"])


def test_other_arguments_pass():
    ours = ["--training-config", '{"parallelism": 2}', "--parallelism", "2"]
    assert check_program_arguments(ours) is None
    assert check_program_arguments(["p", "py", "-5", "-", "--"]) is None

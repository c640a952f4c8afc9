"""Program arguments that Flink's PythonDriver would take for its own options."""

from collections.abc import Sequence
from typing import Final

DRIVER_OPTIONS: Final = (
    "-py",
    "--python",
    "-pyfs",
    "--pyFiles",
    "-pym",
    "--pyModule",
    "-pyreq",
    "--pyRequirements",
    "-pyarch",
    "--pyArchives",
    "-pyexec",
    "--pyExecutable",
    "-pyclientexec",
    "--pyClientExecutable",
    "-pypath",
    "--pyPythonPath",
)
"""Options of `org.apache.flink.client.python.PythonDriver` (Flink 2.3)."""


def check_program_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that the driver reads as an abbreviation of one of its options.

    Commons CLI completes abbreviations with one dash or two; an ambiguous one ends the whole
    JobManager, which is why this is checked before anything is sent.

    Raises
    ------
    ValueError
        Names the argument and the options that it abbreviates.
    """
    for argument in arguments:
        if not argument.startswith("-"):
            continue
        name = argument.lstrip("-").partition("=")[0]
        taken = [
            option for option in DRIVER_OPTIONS if name and option.lstrip("-").startswith(name)
        ]
        if taken:
            raise ValueError(
                f"the program argument {argument!r} abbreviates {', '.join(taken)} of Flink's"
                " PythonDriver, which would take it for its own; give it another name"
            )

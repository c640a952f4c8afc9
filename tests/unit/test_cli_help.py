"""The command line teaches: every command says what it prints and shows an example; Tab works."""

import os
import re
import shlex
import subprocess

import pytest
from typer.main import get_command

from flead.cli.main import app
from flead.federation.strategy import STRATEGIES
from flead.stack.home import CHECKOUT

PROGRAM = CHECKOUT / "bin" / "flead"
WITHOUT_JSON = {"logs", "sql"}
"""What servers say, and what psql does."""


def commands(group, path=()):
    """Return every command by its path."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            found[" ".join((*path, name))] = command
    return found


COMMANDS = commands(get_command(app))
every_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.mark.parametrize("name", ["experiment", "rounds try"])
def test_who_chooses_a_strategy_is_told_all_of_them(name):
    [option] = [each for each in COMMANDS[name].params if each.name == "strategy"]

    assert re.findall(r"fed\w+", option.help) == list(STRATEGIES)


@every_command
def test_a_command_says_in_one_sentence_what_it_does(name):
    first = COMMANDS[name].help.split("\n\n")[0]

    assert re.fullmatch(r"[A-Z].*[.]", first, flags=re.DOTALL), first


@every_command
def test_a_command_says_what_it_prints(name):
    assert "\n\nPrints " in COMMANDS[name].help


@every_command
def test_an_example_of_a_command_is_one_that_it_accepts(name, tmp_path):
    example = re.search(rf"\n\nExample: `(flead {name}\b[^`|]*)", COMMANDS[name].help)
    assert example, COMMANDS[name].help
    _flead, *words = shlex.split(example[1])
    # A folder that is there, as far as the command can see.
    words = [str(tmp_path) if word == "DIR" else word for word in words]

    context = get_command(app).make_context("flead", list(words))

    assert parsed(context.command, context) is not None


def parsed(group, context):
    """Parse the words of nested commands; errors are raised."""
    name, command, rest = group.resolve_command(context, context._protected_args + context.args)
    inner = command.make_context(name, rest, parent=context)
    return parsed(command, inner) if hasattr(command, "commands") else inner.params


@pytest.mark.parametrize("name", set(COMMANDS) - WITHOUT_JSON)
def test_programs_get_json_from_every_command(name):
    assert any("--json" in option.opts for option in COMMANDS[name].params)


def offered(**variables):
    """Return what `bin/flead` offers to a shell."""
    return subprocess.run(
        [PROGRAM], env=os.environ | variables, capture_output=True, text=True, check=True
    ).stdout


def test_bash_completes_the_words_after_the_path_of_the_program():
    # As bash does for these words and the Tab key; it finds a path's function by its last part.
    press = f"""
    {offered(_FLEAD_COMPLETE="source_bash")}
    COMP_WORDS=({PROGRAM} models sh) COMP_CWORD=2
    _flead_completion {PROGRAM}
    echo "${{COMPREPLY[@]}}"
    complete -p flead
    """

    shown = subprocess.run(
        ["bash", "-c", press],  # noqa: S607 - whichever bash is installed
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout == "show\ncomplete -o default -F _flead_completion flead\n"


def test_zsh_is_offered_commands_with_what_they_do():
    commands = offered(_FLEAD_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="flead models d")

    assert '"diff":"Compare two versions weight by weight, the' in commands
    assert "list" not in commands


def test_the_shell_is_offered_the_names_of_servers():
    names = offered(_FLEAD_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="flead logs fl")

    assert re.findall(r'"([\w-]+)"', names) == ["flink-jobmanager", "flink-taskmanager", "flink"]

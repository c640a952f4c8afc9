"""How commands are told of a strategy of aggregation."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flead.federation.strategy import Strategy

StrategyName = Annotated[
    str, typer.Option(help="How updates are aggregated: fedavg, fedmedian or fedtrimmedavg.")
]
StrategyOptions = Annotated[
    list[str] | None,
    typer.Option(help="Option of the strategy, NAME=VALUE; may be repeated."),
]


def strategy_of(name: str, options: list[str] | None) -> "Strategy":
    """Make the strategy that was asked for.

    Raises
    ------
    typer.BadParameter
        There is no such strategy or option, or its value is no JSON or out of range.
    """
    from flead.federation.strategy import make_strategy

    try:
        return make_strategy(name, option_values(options or []))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def option_values(texts: list[str]) -> dict[str, Any]:
    """Read options of a strategy, each as `name=value`.

    Raises
    ------
    typer.BadParameter
        When one has no `=` or its value is no JSON.
    """
    import msgspec

    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        try:
            values[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            separator = ""
        if not separator:
            raise typer.BadParameter(f"{text!r} is no option: write server_learning_rate=0.5")
    return values

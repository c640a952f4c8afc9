"""The command that shows dead letters."""

import sys
from typing import Annotated

import typer

from flead.cli.stack import Json
from flead.stack.home import Home

SHOWN = 10
app = typer.Typer()


@app.command("dead-letters", rich_help_panel="Data")
def dead_letters(
    *,
    limit: Annotated[
        int, typer.Option(min=1, help="The newest of each partition that are looked at.")
    ] = 1_000,
    json: Json = False,
) -> None:
    """Show what was not processed, and why: counts by reason, and the newest with their places.

    Prints a line for each reason of a topic, then the ten newest with topic, partition and offset;
    with --json all that were looked at.

    Example: `flead dead-letters --limit 100`
    """
    import msgspec

    from flead.stack.addresses import Addresses
    from flead.stack.dead_letters import newest_letters

    kafka = {"bootstrap.servers": Addresses.of(Home.from_environment()).kafka_bootstrap}
    found = newest_letters(kafka, limit)
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    lines = [
        f"{count:>9,} {reason:<20} {topic}"
        for topic, reasons in found.counts.items()
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1])
    ]
    lines += [
        f"{each.sent_at:%m-%d %H:%M:%S} {each.topic}/{each.partition}/{each.offset}"
        f" {each.reason}: {each.detail}"
        for each in found.letters[:SHOWN]
    ]
    sys.stdout.write("\n".join(lines or ["there are no dead letters"]) + "\n")

"""Options of every command that makes a simulated fleet."""

from typing import Annotated

import typer

Devices = Annotated[int, typer.Option(min=1, help="Devices in the fleet.")]
Rate = Annotated[str, typer.Option(help="Rows of the whole fleet: N/min, N/s or N/h.")]
AnomalyRate = Annotated[
    float, typer.Option(min=0, max=1, help="Mean share of rows that belong to an attack.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same rows.")]

"""How valid the data behind an update is; nothing about how well its model does."""

from typing import Final

from flead.contracts.messages import Moments

LOWEST: Final = 0.5
"""Quality of a device of which only one input in many ever comes."""


def quality_of(moments: Moments) -> float:
    """Return the quality of a device's data, in [0.5, 1]: 0.5 + 0.5 x the share of inputs present.

    The share is the mean over the inputs of their counted rows, relative to the input counted most:
    1 when no declared feature has been missing in the rows that the moments remember. A device can
    claim 1 at most, which is what every update counts without this weighting.
    """
    most = max(moments.count, default=0.0)
    if most <= 0.0:
        return LOWEST
    present = sum(count / most for count in moments.count) / len(moments.count)
    return LOWEST + (1.0 - LOWEST) * present

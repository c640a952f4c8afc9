"""How devices adapt by themselves: the settings of their rate, their rest and their drift test."""

import math
from typing import Final, NamedTuple

from flead.learning.drift import PageHinkley
from flead.learning.plateau import Patience
from flead.learning.rate import RateRule


class Adaptation(NamedTuple):
    """Settings of all three; the same for every device."""

    rate: RateRule = RateRule()
    patience: Patience = Patience()
    drift: PageHinkley = PageHinkley()


CLOSED_LOOP: Final = Adaptation()

OPEN_LOOP: Final = Adaptation(RateRule(gain=0.0), Patience(windows=math.inf))
"""Every device trains on every window with the fleet's rate; drift is still told."""

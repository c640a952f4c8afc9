"""Labelled attacks on simulated devices: episodes of consecutive rows."""

from typing import Final

import numpy as np

from flead.contracts.simulation import FEATURES
from flead.fleet.devices import Floats, Integers, random_feature

ATTACKS: Final = ("spike", "drift", "flatline", "scan")
SPIKE, DRIFT, FLATLINE, SCAN = range(len(ATTACKS))

EPISODE_ROWS: Final = {SPIKE: (3, 6), DRIFT: (10, 20), FLATLINE: (6, 14), SCAN: (5, 12)}
"""Fewest and most rows of an episode of each attack."""

TOWARDS: Final = np.array([-1.0 if feature == "pressure" else 1.0 for feature in FEATURES])
"""Where an attack pushes each feature: an attacked device loses pressure, all else rises."""

_THROUGHPUT: Final = FEATURES.index("throughput")
_SHAPES: Final = np.array(
    [
        (attack, rows)
        for attack, (fewest, most) in EPISODE_ROWS.items()
        for rows in range(fewest, most + 1)
    ]
)
_PROBABILITY: Final = np.array(
    [1 / len(ATTACKS) / (most + 1 - fewest) for fewest, most in EPISODE_ROWS.values()]
)[_SHAPES[:, 0]]
_MEAN_ROWS: Final = float(_PROBABILITY @ _SHAPES[:, 1])


class AttackSchedule:
    """Which devices are attacked, how, and how far that moves their values.

    An alternating renewal process: episodes of an even mix of attacks, with geometric gaps whose
    mean makes the share of attacked rows `anomaly_rate` from the first row on.
    """

    def __init__(self, level: Floats, anomaly_rate: float, generator: np.random.Generator) -> None:
        devices = len(level)
        self._level = level
        self._generator = generator
        self._start_probability = (
            1.0 / (1.0 + _MEAN_ROWS * (1.0 - anomaly_rate) / anomaly_rate) if anomaly_rate else 0.0
        )
        self._attack = np.full(devices, -1)
        self._rows = np.zeros(devices, dtype=np.int64)
        self._elapsed = np.zeros(devices, dtype=np.int64)
        self._feature = np.zeros(devices, dtype=np.int64)
        self._strength = np.zeros(devices)
        self._held = np.zeros(devices)
        attacked = np.flatnonzero(generator.random(devices) < anomaly_rate)
        # Stationary from the first row: a long episode is the likelier one to be found under way.
        self._begin(attacked, _PROBABILITY * _SHAPES[:, 1] / _MEAN_ROWS)
        self._elapsed[attacked] = 1 + generator.random(len(attacked)) * self._rows[attacked]

    def step(self, values: Floats, noise: Floats) -> Integers:
        """Apply the attacks of the next row of every device to `values`, in place.

        Parameters
        ----------
        values
            What the devices would measure, of shape (devices, features), nan where missing.
        noise
            Standard deviation of each value's noise, of the same shape: the scale of an attack.

        Returns
        -------
        Index in `ATTACKS` of each device's attack, -1 for none, of shape (devices,).
        """
        over = self._elapsed >= self._rows
        self._attack[over] = -1
        starting = self._generator.random(len(over)) < self._start_probability
        self._begin(np.flatnonzero(over & starting), _PROBABILITY)
        attacked = np.flatnonzero(self._attack >= 0)
        self._push(values, noise, attacked)
        self._elapsed[attacked] += 1
        return self._attack.copy()

    def _begin(self, devices: Integers, probability: Floats) -> None:
        generator, count = self._generator, len(devices)
        shape = _SHAPES[generator.choice(len(_SHAPES), count, p=probability)]
        attack = shape[:, 0]
        feature = random_feature(self._level[devices], generator)
        self._attack[devices] = attack
        self._rows[devices] = shape[:, 1]
        self._elapsed[devices] = 0
        self._feature[devices] = np.where(attack == SCAN, _THROUGHPUT, feature)
        self._strength[devices] = generator.uniform(5.0, 10.0, count)
        self._held[devices] = np.nan

    def _push(self, values: Floats, noise: Floats, devices: Integers) -> None:
        attack, feature = self._attack[devices], self._feature[devices]
        strength, elapsed = self._strength[devices], self._elapsed[devices]
        unsteady = self._generator.random(len(devices))
        push = np.select(
            [attack == SPIKE, attack == DRIFT, attack == SCAN],
            [
                strength * (0.75 + 0.5 * unsteady),
                strength * np.minimum(1.0, (elapsed + 1) / (0.4 * self._rows[devices])),
                strength * (0.6 + 0.6 * unsteady),
            ],
            default=strength,
        )
        at = (devices, feature)
        moved = values[at] + TOWARDS[feature] * push * noise[at]
        held = self._held[devices]
        moved = np.where((attack == FLATLINE) & ~np.isnan(held), held, moved)
        self._held[devices] = moved
        values[at] = moved

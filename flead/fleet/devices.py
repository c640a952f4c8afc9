"""Kinds of simulated devices and the character that each device draws from its kind."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flead.contracts.simulation import FEATURES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DRIFTING_SHARE: Final = 0.3
"""Share of the fleet that a drift changes for good."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One feature of a device kind, in the feature's unit.

    `spread` is the standard deviation of the logarithm of the devices' levels, `noise` the share of
    the level that one standard deviation of a device's noise is.
    """

    level: float
    spread: float
    noise: float


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device, its share of the fleet, and the features that it has."""

    name: str
    share: float
    signals: dict[str, Signal]


KINDS: Final = (
    DeviceKind(
        "pump",
        0.35,
        {
            "temperature": Signal(55.0, 0.25, 0.02),
            "vibration": Signal(4.0, 0.60, 0.05),
            "current": Signal(14.0, 0.50, 0.04),
            "pressure": Signal(6.0, 0.40, 0.03),
            "throughput": Signal(8.0, 0.70, 0.06),
        },
    ),
    DeviceKind(
        "motor",
        0.30,
        {
            "temperature": Signal(70.0, 0.20, 0.02),
            "vibration": Signal(7.0, 0.50, 0.05),
            "current": Signal(32.0, 0.60, 0.04),
            "throughput": Signal(6.0, 0.70, 0.06),
        },
    ),
    DeviceKind(
        "environment",
        0.25,
        {
            "temperature": Signal(19.0, 0.20, 0.03),
            "pressure": Signal(1.013, 0.02, 0.004),
            "throughput": Signal(0.8, 0.50, 0.05),
        },
    ),
    DeviceKind(
        "gateway",
        0.10,
        {
            "temperature": Signal(42.0, 0.15, 0.02),
            "current": Signal(1.2, 0.30, 0.04),
            "throughput": Signal(420.0, 0.90, 0.06),
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Character:
    """What sets each device of a fleet apart, arrays of shape (devices, features).

    `level`, `noise` (standard deviation) and `swing` (amplitude of the daily rhythm) are in the
    feature's unit, nan where the device lacks the feature; `persistence` is the coefficient of its
    AR(1) noise; `peak_seconds` (devices) is when its day peaks.
    """

    kind: Integers
    level: Floats
    noise: Floats
    swing: Floats
    persistence: Floats
    peak_seconds: Floats

    def drifted(self, generator: np.random.Generator) -> "Character":
        """Return the fleet after a lasting change of some devices, each of one feature."""
        devices = len(self.kind)
        drifting = np.flatnonzero(generator.random(devices) < DRIFTING_SHARE)
        feature = random_feature(self.level[drifting], generator)
        at = (drifting, feature)
        sign = generator.choice([-1.0, 1.0], len(drifting))
        level, noise = self.level.copy(), self.noise.copy()
        level[at] += sign * generator.uniform(4.0, 8.0, len(drifting)) * noise[at]
        noise[at] *= generator.uniform(1.2, 2.0, len(drifting))
        return replace(self, level=level, noise=noise)


def draw_character(devices: int, generator: np.random.Generator) -> Character:
    """Draw the kind and the character of each of `devices` devices."""
    kind = generator.choice(len(KINDS), devices, p=[kind.share for kind in KINDS])
    shape = (devices, len(FEATURES))
    level = _of_kind("level")[kind] * np.exp(
        _of_kind("spread")[kind] * generator.standard_normal(shape)
    )
    noise = level * _of_kind("noise")[kind] * np.exp(0.3 * generator.standard_normal(shape))
    return Character(
        kind=kind,
        level=level,
        noise=noise,
        swing=noise * generator.uniform(0.0, 4.0, shape),
        persistence=generator.uniform(0.1, 0.6, shape),
        peak_seconds=generator.uniform(0.0, 86_400.0, devices),
    )


def device_names(kind: Integers) -> list[str]:
    """Names of the devices: their kind and their number in the fleet."""
    return [f"{KINDS[of].name}-{number:05d}" for number, of in enumerate(kind.tolist())]


def random_feature(level: Floats, generator: np.random.Generator) -> Integers:
    """Index of one feature for each row of `level`, evenly among those that the device has."""
    draw: Floats = np.where(np.isnan(level), -1.0, generator.random(level.shape))
    feature: Integers = draw.argmax(axis=1)
    return feature


def _of_kind(attribute: str) -> Floats:
    """Shape (kinds, features): an attribute of each kind's signals, nan where it has none."""
    missing = Signal(np.nan, np.nan, np.nan)
    return np.array(
        [
            [getattr(kind.signals.get(feature, missing), attribute) for feature in FEATURES]
            for kind in KINDS
        ]
    )

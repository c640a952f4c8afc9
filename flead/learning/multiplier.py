"""Bounds of a device's multiple of the fleet's learning rate, without the compiled rule for it."""

from typing import Final

LEAST: Final = 1 / 8
MOST: Final = 8.0

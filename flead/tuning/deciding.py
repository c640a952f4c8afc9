"""Whether the global model still gets better, by evaluations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from flead.storage.outcomes import FleetError


class NotEnoughError(Exception):
    """The evaluations do not allow a comparison; the message says what is missing."""


class Comparison(msgspec.Struct, frozen=True):
    """The error of the last versions against that of as many before.

    `earlier_error` and `later_error` are means of chain-linked log losses: see `compare`.
    `improvement` is relative to the earlier one; `scored` counts versions with an evaluation.
    """

    earlier: list[int]
    later: list[int]
    scored: int
    windows: int
    earlier_error: float
    later_error: float
    improvement: float


def compare(versions: Sequence[int], errors: Iterable[FleetError]) -> Comparison:
    """Compare the later half of `versions` with the earlier half on the same evaluation windows.

    An evaluation scores its versions and their parents on one window, so consecutive versions
    share one even where two evaluations meet. A version's error is that of the version before plus
    the difference of both on the windows that they share, weighted by labelled rows: a chain-linked
    index, as in the national accounts, in which a window that is harder for all cancels. Where all
    versions share one window, it is their log loss there.

    Parameters
    ----------
    versions
        Promoted versions, oldest first, an even number.
    errors
        Of evaluations that passed the quality checks.

    Raises
    ------
    NotEnoughError
        When half of either half has no evaluation, or neighbours share no window.
    """
    found = _by_version(errors)
    middle = len(versions) // 2
    halves = versions[:middle], versions[middle:]
    for half in halves:
        scored = sum(version in found for version in half)
        if scored < math.ceil(len(half) / 2) or not scored:
            raise NotEnoughError(
                f"of the {len(half)} versions {half[0]} to {half[-1]}, {scored} have an evaluation"
                " that passed the quality checks"
                if half
                else "there are no versions to compare"
            )
    levels = _levels([version for version in versions if version in found], found)
    earlier, later = (
        math.fsum(levels[version] for version in half if version in levels)
        / sum(version in levels for version in half)
        for half in halves
    )
    return Comparison(
        earlier=list(halves[0]),
        later=list(halves[1]),
        scored=len(levels),
        windows=len({window for version in levels for window in found[version]}),
        earlier_error=earlier,
        later_error=later,
        improvement=(earlier - later) / abs(earlier) if earlier else 0.0,
    )


_Windows = Mapping[object, FleetError]


def _by_version(errors: Iterable[FleetError]) -> dict[int, dict[object, FleetError]]:
    found: dict[int, dict[object, FleetError]] = {}
    for error in errors:
        found.setdefault(error.version, {})[error.window] = error
    return found


def _levels(scored: Sequence[int], found: Mapping[int, _Windows]) -> dict[int, float]:
    first = next(iter(found[scored[0]].values()))
    levels = {scored[0]: first.log_loss}
    for before, version in pairwise(scored):
        levels[version] = levels[before] + _step(found[before], found[version])
    return levels


def _step(before: _Windows, after: _Windows) -> float:
    shared = [(before[window], after[window]) for window in after if window in before]
    if not shared:
        first, second = (next(iter(each.values())).version for each in (before, after))
        raise NotEnoughError(f"versions {first} and {second} were evaluated on no common window")
    weight = sum(error.samples for _, error in shared)
    return (
        math.fsum(error.samples * (error.log_loss - base.log_loss) for base, error in shared)
        / weight
    )

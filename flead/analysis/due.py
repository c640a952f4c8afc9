"""Which versions an evaluation scores, and on which rows: those that none of them trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flead.messaging.reading import TopicRewoundError

Offsets = Mapping[int, int]
Ranges = Mapping[int, tuple[int, int]]
"""First offset of each partition and one past its last."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A version, and for each partition the highest offset that it or an ancestor trained on."""

    version: int
    parent_version: int
    input_offsets: Offsets


def with_parents(due: Iterable[Trained], known: Mapping[int, Trained]) -> list[Trained]:
    """Return versions and their parents, oldest first; there is no parent 0."""
    versions = {version for each in due for version in (each.version, each.parent_version)}
    return [known[version] for version in sorted(versions) if version in known]


def first_unseen(trained: Iterable[Trained], ranges: Ranges) -> dict[int, int]:
    """Return the first offset of each partition beyond what any of the versions was trained on.

    Raises
    ------
    TopicRewoundError
        A version was trained beyond the end of a partition: it is not the topic that it knew.
    """
    start = {partition: low for partition, (low, _) in ranges.items()}
    for each in trained:
        for partition, offset in each.input_offsets.items():
            _, high = ranges.get(partition, (0, 0))
            if offset >= high:
                raise TopicRewoundError(
                    f"version {each.version} was trained up to offset {offset} of partition"
                    f" {partition}, which ends at {high}: the topic was deleted, or its broker lost"
                    " data; start with an empty database, or deploy another feature list"
                )
            start[partition] = max(start[partition], offset + 1)
    return start


def consecutive(trained: Sequence[Trained], ranges: Ranges) -> list[tuple[Offsets, Offsets]]:
    """Return where the window of each version begins and, exclusive, ends: where the next begins.

    Versions are given oldest first. Each window lies beyond all that its version and those before
    it were trained on, so that no row comes twice; the last one reaches to the end of the topic.
    Raises what `first_unseen` raises.
    """
    starts = [first_unseen(trained[: place + 1], ranges) for place in range(len(trained))]
    end = {partition: high for partition, (_, high) in ranges.items()}
    return list(pairwise([*starts, end]))


def oldest_first(start: Offsets, ranges: Ranges, max_rows: int) -> dict[int, int]:
    """Return where a window of at most `max_rows` offsets ends, exclusive.

    When there are more, each partition gives the same share of its own, its oldest: they lie
    nearest to the training, they go first when the topic's retention deletes, and all partitions
    reach about the same time.
    """
    sizes = {partition: ranges[partition][1] - first for partition, first in start.items()}
    total = sum(sizes.values())
    if total <= max_rows:
        return {partition: ranges[partition][1] for partition in start}
    return {
        partition: first + sizes[partition] * max_rows // total
        for partition, first in start.items()
    }


def warm_up(
    start: Offsets, ranges: Ranges, history: Mapping[int, int | None], max_rows: int
) -> dict[int, int]:
    """Return where to read from so that the window's rows have their history.

    Parameters
    ----------
    history
        For each partition the first offset of what all its devices need before the window, None
        where the stored windows do not tell; there, and where it is missing, as much as allowed.
    max_rows
        Offsets before the window at most, over all partitions.
    """
    allowed = max_rows // max(len(start), 1)
    begin = {}
    for partition, first in start.items():
        earliest = max(ranges[partition][0], first - allowed)
        needed = history.get(partition)
        begin[partition] = earliest if needed is None else min(max(needed, earliest), first)
    return begin


def newest(due: Sequence[Trained], count: int) -> list[Trained]:
    """Return the newest `count` of versions that are given oldest first."""
    return list(due[-count:])

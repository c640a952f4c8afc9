"""Which versions are scored together, and on which offsets."""

import pytest

from flead.analysis.due import (
    Trained,
    consecutive,
    first_unseen,
    newest,
    oldest_first,
    warm_up,
    with_parents,
)
from flead.messaging.reading import TopicRewoundError


def test_versions_are_scored_with_their_parents_of_which_the_first_has_none():
    known = {
        version: Trained(version, parent, {})
        for version, parent in ((1, 0), (4, 1), (5, 4), (7, 5))
    }

    assert with_parents([known[7], known[4]], known) == [known[n] for n in (1, 4, 5, 7)]
    assert with_parents([known[1]], known) == [known[1]]


def test_the_newest_of_many_versions_go_first():
    due = [Trained(version, version - 1, {}) for version in (1, 2, 3)]

    assert newest(due, 2) == due[1:]


def test_a_window_starts_beyond_what_any_version_was_trained_on_and_where_the_topic_does():
    ranges = {0: (0, 100), 1: (60, 100), 2: (5, 100), 3: (0, 0)}
    trained = [Trained(1, 0, {0: 10, 1: 50}), Trained(2, 1, {0: 99, 1: 20})]

    # Retention has taken rows of 1 that no version was trained on, and nobody was trained on 2.
    assert first_unseen(trained, ranges) == {0: 100, 1: 60, 2: 5, 3: 0}


@pytest.mark.parametrize("ranges", [{0: (0, 10)}, {1: (0, 99)}])
def test_a_topic_that_ends_before_what_a_version_was_trained_on_is_another(ranges):
    with pytest.raises(TopicRewoundError, match="version 3 was trained up to offset 10"):
        first_unseen([Trained(3, 2, {0: 10})], ranges)


def test_the_windows_of_versions_that_follow_each_other_share_no_row():
    ranges = {0: (0, 100), 1: (30, 90)}
    # The second was rejected: the third went on from the first, with less of partition 1.
    trained = [Trained(1, 0, {0: 9}), Trained(2, 1, {0: 19, 1: 59}), Trained(3, 1, {0: 29, 1: 49})]

    assert consecutive(trained, ranges) == [
        ({0: 10, 1: 30}, {0: 20, 1: 60}),
        ({0: 20, 1: 60}, {0: 30, 1: 60}),
        ({0: 30, 1: 60}, {0: 100, 1: 90}),
    ]


def test_each_partition_gives_the_same_share_of_its_oldest_rows():
    start, ranges = {0: 100, 1: 0, 2: 7}, {0: (0, 500), 1: (0, 200), 2: (0, 7)}

    assert oldest_first(start, ranges, 600) == {0: 500, 1: 200, 2: 7}
    assert oldest_first(start, ranges, 60) == {0: 140, 1: 20, 2: 7}


def test_the_warm_up_begins_where_windows_say_or_as_early_as_allowed():
    start, ranges = dict.fromkeys(range(5), 1_000), dict.fromkeys(range(5), (0, 2_000))
    ranges[4] = (990, 2_000)
    history = {0: 950, 1: 10, 2: None, 4: None}

    # 100 offsets of each are allowed.
    assert warm_up(start, ranges, history, 500) == {0: 950, 1: 900, 2: 900, 3: 900, 4: 990}

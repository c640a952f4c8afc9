"""Waiting rows come back in the order in which they came."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flead.learning.pending import Columns, PendingRows

DEVICES = 4


def rows(numbers):
    """Rows that all carry their number."""
    array = np.array(numbers, dtype=np.int64)
    return Columns(np.stack((array, -array), axis=1) * 1.0, array / 2, array + 7, array)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=DEVICES, max_size=DEVICES),
            st.lists(st.integers(0, 9), min_size=DEVICES, max_size=DEVICES),
        ),
        max_size=15,
    )
)
def test_the_pool_behaves_like_a_queue_for_each_device(steps):
    pending = PendingRows(DEVICES, 2)
    queues = [[] for _ in range(DEVICES)]
    came = 0
    for arriving, leaving in steps:
        devices = np.flatnonzero(arriving)[::-1]
        counts = np.array(arriving, np.int64)[devices]
        numbers = list(range(came, came + int(counts.sum())))
        came += len(numbers)
        places = pending.append(np.repeat(devices, counts), rows(numbers))
        assert pending.rows(places).offset.tolist() == numbers
        for device, part in zip(devices, np.split(numbers, np.cumsum(counts)[:-1]), strict=False):
            queues[device].extend(int(number) for number in part)

        lengths = np.minimum(leaving, pending.count)
        leavers = np.flatnonzero(lengths)
        oldest = pending.rows(pending.oldest(leavers, lengths[leavers]))
        for column, device in enumerate(leavers):
            expected, queues[device] = (
                queues[device][: lengths[device]],
                queues[device][lengths[device] :],
            )
            assert oldest.offset[: lengths[device], column].tolist() == expected
        pending.discard(leavers, lengths[leavers])

        everything = [number for queue in queues for number in queue]
        exported = pending.export()
        assert pending.count.tolist() == [len(queue) for queue in queues]
        for column, expected in zip(exported, rows(everything), strict=True):
            np.testing.assert_array_equal(column, expected)


def test_further_devices_start_without_rows():
    pending = PendingRows(1, 2)
    pending.append(np.array([0, 0]), rows([1, 2]))

    pending.add_devices(2)
    pending.append(np.array([2]), rows([3]))

    assert pending.count.tolist() == [2, 0, 1]
    assert pending.export().offset.tolist() == [1, 2, 3]

"""The program that the documentation shows for a live stream sends what the training job takes."""

import re
import subprocess
import sys

import numpy as np
import pytest

from flead.contracts.topics import Topic
from flead.features.decoding import TelemetryDecoder
from flead.messaging.reading import end_offsets, read_committed
from flead.messaging.topics import create_topics
from flead.stack.home import CHECKOUT

pytestmark = pytest.mark.servers

PAGE = CHECKOUT / "docs" / "your_own_data.md"


def test_the_program_of_your_own_data_sends_a_row_that_the_training_job_takes(kafka):
    properties = {"bootstrap.servers": kafka}
    create_topics(properties)
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    [features] = re.findall(r"set `features` to `\[(.*?)\]`", PAGE.read_text())
    before = end_offsets(properties, Topic.TELEMETRY)

    subprocess.run([sys.executable, "-c", program, kafka], check=True)

    sent = read_committed(properties, Topic.TELEMETRY, before, 10).records
    rows, faults = TelemetryDecoder(re.findall(r'"(\w+)"', features)).decode(
        [record.key for record in sent],
        [record.value for record in sent],
        np.array([record.partition for record in sent], np.int32),
        np.array([record.offset for record in sent]),
        np.array([record.timestamp for record in sent]),
    )
    assert faults == []
    assert (rows.devices, rows.label.tolist()) == (["pump-7"], [0.0])
    assert rows.values[0, 0] == 71.3
    assert np.isnan(rows.values[0, 1])

"""The ends of logs."""

import itertools
import threading

import pytest

from flead.stack import logs


@pytest.mark.parametrize("wanted", [0, 1, 3, 10_000, 20_000])
def test_tail_equals_the_last_lines_of_the_whole_file(tmp_path, wanted):
    lines = [f"line {number} " + "x" * (number % 97) for number in range(10_000)]
    file = tmp_path / "server.log"
    file.write_text("\n".join(lines) + "\n")

    assert logs.tail(file, wanted) == lines[len(lines) - wanted if wanted < len(lines) else 0 :]


def test_tail_of_a_missing_file_is_empty(tmp_path):
    assert logs.tail(tmp_path / "none.log", 5) == []


def test_follow_yields_whole_lines_added_since_across_a_rotation(tmp_path):
    file = tmp_path / "server.log"
    file.write_text("old\n")
    added = logs.follow({"server": file})
    received = []
    first_read, second_read = threading.Event(), threading.Event()

    def read():
        received.extend(itertools.islice(added, 1))
        first_read.set()
        received.extend(itertools.islice(added, 1))
        second_read.set()

    def append_until(event, text):
        while not event.wait(0.5):
            with file.open("a") as log:
                log.write(text)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    append_until(first_read, "new\n")
    file.rename(tmp_path / "server.log.1")
    append_until(second_read, "rotated\n")

    assert received[0] == ("server", "new")
    assert received[1][1] in {"new", "rotated"}

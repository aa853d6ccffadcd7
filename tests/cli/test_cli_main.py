"""The command as a whole: help, speed, and no tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands import instance
from cli.errors import WrongUse
from cli.main import app
from cli.render.units import age, duration, parse_size, size


def test_help_of_every_command_has_a_first_line_that_fits(vdc):
    for group in app.registered_groups:
        listing = vdc(group.name, "--help")
        assert listing.code == 0
        assert "..." not in listing.out.partition("Commands:")[2]
        for command in group.typer_instance.registered_commands:
            name = command.name or command.callback.__name__
            assert vdc(group.name, name, "--help").code == 0


def test_help_needs_no_http_library():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli.main", "--help"], capture_output=True, text=True, check=True
    )
    assert "httpx" not in done.stderr
    assert "vdc instance create" in done.stdout


def test_a_terminal_that_knows_only_ascii_gets_an_answer():
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_result_that_cannot_be_written_is_a_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "vdc: the result could not be written: No space left on device.\n"


def test_a_reader_that_has_seen_enough_is_no_fault():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert done.stderr == ""


def test_a_fault_of_our_own_is_a_line_and_not_a_traceback(vdc, monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("surprise")

    monkeypatch.setattr(instance, "show_list", broken)
    ended = vdc("instance", "list")
    assert ended.code == 1
    assert "KeyError: 'surprise'" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.00 s"),
        (0.354, "0.35 s"),
        (27.7, "27.7 s"),
        (59.96, "1 m 00 s"),
        (125, "2 m 05 s"),
        (7380, "2 h 03 m"),
        (200000, "2 d 7 h"),
        (-3, "0.00 s"),
    ],
)
def test_durations_are_read_at_a_glance(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024**2 - 1, "1.0 MiB"), (4 * 1024**3, "4.0 GiB"), (None, "-")],
)
def test_sizes_are_read_at_a_glance(count, words):
    assert size(count) == words


@pytest.mark.parametrize(
    ("text", "count"),
    [("1024", 1024), ("10GiB", 10 * 1024**3), ("10 g", 10 * 1024**3), ("1.5 MiB", 1572864), ("7B", 7), ("2KB", 2048)],
)
def test_sizes_are_written_in_many_ways(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1XB", "1e9", "ten"])
def test_what_is_not_a_size_is_wrong_use(text):
    with pytest.raises(WrongUse, match="not a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_number_of_bytes_means_itself(count):
    assert parse_size(str(count)) == count


def test_a_clock_that_is_ahead_makes_no_negative_age():
    assert age("2999-01-01T00:00:00Z") == "just now"
    assert age(None) == "-"
    assert age("not a time") == "-"

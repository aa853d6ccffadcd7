"""Following an operation: to its end, over outages, and away from it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
from rich.console import Console

from cli.render.progress import Lines
from tests.cli.objects import GIB, failed_launch, instance, operation, step
from tests.cli.scripted_api import DROP, TOKEN, Answer, problem

FETCH = "volumes.fetch_image"
PLUG = "networks.plug"


def copying(done: int, state: str = "running", **changes):
    return step(
        1,
        FETCH,
        state,
        progress={"done": done, "total": 4 * GIB, "unit": "bytes"},
        started_at="2026-03-01T13:02:11.120Z",
        ended_at="2026-03-01T13:02:39.000Z" if state == "done" else None,
        **changes,
    )


def script_of_a_launch(api, *between):
    api.on("POST", "instances", Answer(202, instance("scheduling", operation=operation("queued"))))
    api.on(
        "GET",
        "operations/op-7k2m9x4q",
        operation("queued", steps=[step(1, FETCH, "queued"), step(2, PLUG, "blocked")]),
        operation("running", steps=[copying(GIB), step(2, PLUG, "blocked")]),
        *between,
        operation("running", steps=[copying(GIB, attempt=2), step(2, PLUG, "blocked")]),
        operation("done", steps=[copying(4 * GIB, "done", attempt=2), step(2, PLUG, "done")]),
    )
    api.on("GET", "instances/i-7d2kq9xw", instance())


LAUNCH = ("instance", "create", "--image", "wmi-demolxc1", "--wait")


def test_waiting_tells_each_change_of_a_step_once_and_ends_with_0(api, vdc):
    script_of_a_launch(api)
    ended = vdc(*LAUNCH)
    assert (ended.code, ended.out) == (0, "i-7d2kq9xw is running at 10.77.0.12\n")
    lines = [line[9:] for line in ended.err.splitlines()[1:]]
    assert lines[0] == "op-7k2m9x4q instance.launch i-7d2kq9xw queued"
    fetching = [line for line in lines if FETCH in line]
    assert len(fetching) == 3
    assert fetching[0].startswith("step 1/2 volumes.fetch_image running on hn-3f7h2k9s, 1.0 GiB of 4.0 GiB")
    assert "attempt 2" in fetching[1]
    assert fetching[2].startswith("step 1/2 volumes.fetch_image done on hn-3f7h2k9s after 27.9 s")
    assert lines[-1] == "step 2/2 networks.plug done on hn-3f7h2k9s"
    assert "\x1b" not in ended.err


def test_for_programs_waiting_prints_the_object_as_it_became(api, vdc):
    script_of_a_launch(api)
    assert json.loads(vdc(*LAUNCH, "-o", "json").out) == instance()


@pytest.mark.parametrize(("quiet_s", "lines"), [(0.0, 4), (60.0, 2)])
def test_a_long_step_gives_a_sign_of_life_now_and_then(quiet_s, lines):
    written = io.StringIO()
    with Lines(Console(file=written), quiet_s=quiet_s) as view:
        for done in (0, GIB, 2 * GIB):
            view.show(operation("running", steps=[copying(done), step(2, PLUG, "blocked")]))
    assert len(written.getvalue().splitlines()) == lines


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_an_operation_that_is_not_done_ends_with_1_and_the_reason(api, vdc, state):
    api.on("POST", "instances", Answer(202, instance("scheduling", operation=operation("queued"))))
    told = failed_launch() if state == "failed" else operation("cancelled")
    api.on("GET", "operations/op-7k2m9x4q", told)
    ended = vdc(*LAUNCH)
    assert (ended.code, ended.out) == (1, "")
    assert state in ended.err
    assert "The whole story: vdc operation show op-7k2m9x4q" in ended.err
    if state == "failed":
        assert "failed in step 2 of 4, volumes.build_volume on hn-3f7h2k9s: the disk of node" in ended.err
        assert "What helps: free some room" in ended.err


def test_waiting_survives_dropped_lines_and_503(api, vdc):
    away = problem(503, "The database does not answer.", headers={"Retry-After": "1"})
    script_of_a_launch(api, DROP, away, away, Answer(502, b"<html>", content_type="text/html"))
    ended = vdc(*LAUNCH)
    assert ended.code == 0
    assert ended.err.count("waiting up to 5 m 00 s for it; op-7k2m9x4q goes on meanwhile") == 1
    assert ended.err.count("answers again") == 1


def test_patience_with_a_server_that_is_away_ends_and_the_operation_is_not_called_failed(api, vdc, monkeypatch):
    monkeypatch.setattr("cli.wait.PATIENCE_S", 0.1)
    api.on("POST", "instances", Answer(202, instance("scheduling", operation=operation("queued"))))
    api.on("GET", "operations/op-7k2m9x4q", DROP)
    ended = vdc(*LAUNCH)
    assert ended.code == 1
    assert "may well go on" in ended.err
    assert "vdc operation watch op-7k2m9x4q" in ended.err


def test_a_token_that_ends_meanwhile_ends_the_waiting(api, vdc):
    script_of_a_launch(api, problem(401, "The token has expired."))
    ended = vdc(*LAUNCH)
    assert ended.code == 1
    assert "The token has expired." in ended.err


def test_watch_tells_on_stdout_and_ends_as_the_operation_did(api, vdc):
    script_of_a_launch(api)
    good = vdc("operation", "watch", "op-7k2m9x4q")
    assert good.code == 0
    assert FETCH in good.out
    api.on("GET", "operations/op-7k2m9x4q", failed_launch())
    assert vdc("operation", "watch", "op-7k2m9x4q").code == 1


@pytest.mark.parametrize(
    ("arguments", "verb", "body"),
    [
        (["poweroff"], "poweroff", {}),
        (["poweroff", "--timeout-s", "5"], "poweroff", {"timeout_s": 5}),
        (["poweroff", "--force"], "poweroff", {"force": True}),
        (["poweron"], "poweron", {}),
        (["terminate"], "terminate", {}),
    ],
)
def test_each_verb_is_asked_for_and_can_be_waited_for(api, vdc, arguments, verb, body):
    api.on("POST", f"instances/i-7d2kq9xw/{verb}", Answer(202, instance(operation=operation("queued"))))
    api.on("GET", "operations/op-7k2m9x4q", operation(verb=f"instance.{verb}"))
    api.on("GET", "instances/i-7d2kq9xw", instance("halted", addresses=[]))
    ended = vdc("instance", *arguments, "i-7d2kq9xw", "--wait")
    assert (ended.code, ended.out) == (0, "i-7d2kq9xw is halted\n")
    assert api.requests[0].body == body


def test_a_subject_that_is_gone_after_its_end_is_a_success(api, vdc):
    api.on(
        "POST", "instances/i-7d2kq9xw/terminate", Answer(202, instance("shuttingdown", operation=operation("queued")))
    )
    api.on("GET", "operations/op-7k2m9x4q", operation())
    api.on("GET", "instances/i-7d2kq9xw", problem(404, "There is no i-7d2kq9xw."))
    ended = vdc("instance", "terminate", "i-7d2kq9xw", "--wait")
    assert ended.code == 0
    assert "is gone" in ended.out


def _environment(api):
    return os.environ | {"VDC_URL": api.url, "VDC_TOKEN": TOKEN, "TERM": "xterm", "PYTHONUNBUFFERED": "1"}


def test_ctrl_c_says_that_the_operation_goes_on_and_how_to_watch_it(api):
    api.on("POST", "instances", Answer(202, instance("scheduling", operation=operation("queued"))))
    asked_twice = threading.Semaphore(0)

    def still_running(request):
        asked_twice.release()
        return Answer(body=operation("running", steps=[copying(GIB)]))

    api.on("GET", "operations/op-7k2m9x4q", still_running)
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *LAUNCH],
        env=_environment(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert asked_twice.acquire(timeout=30)
        assert asked_twice.acquire(timeout=30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "op-7k2m9x4q goes on without you" in err
    assert "vdc operation watch op-7k2m9x4q" in err
    assert "Traceback" not in err
    assert out == ""


def test_a_terminal_gets_a_bar_for_each_step(api):
    script_of_a_launch(api)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "operation", "watch", "op-7k2m9x4q"],
        env=_environment(api),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that nobody holds the other end any more
                break
            if not piece:
                break
            seen += piece
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = seen.decode()
    assert "━" in text
    assert "1.0 GiB of 4.0 GiB" in text
    assert "attempt 2" in text
    assert FETCH in text
    assert PLUG in text
    assert "\x1b[" in text


def test_cancel_says_that_it_was_asked_for_and_how_to_watch(api, vdc):
    api.on("POST", "operations/op-7k2m9x4q/cancel", Answer(202, operation("running")))
    ended = vdc("operation", "cancel", "op-7k2m9x4q")
    assert (ended.code, ended.out) == (
        0,
        "op-7k2m9x4q is running and was asked to stop (vdc operation watch op-7k2m9x4q)\n",
    )
    assert api.requests[0].body == {}


@pytest.mark.parametrize(("state", "code"), [("cancelled", 0), ("done", 1)])
def test_cancel_that_waits_succeeds_when_it_ended_as_cancelled(api, vdc, state, code):
    api.on("POST", "operations/op-7k2m9x4q/cancel", Answer(202, operation("running")))
    api.on("GET", "operations/op-7k2m9x4q", operation(state))
    ended = vdc("operation", "cancel", "op-7k2m9x4q", "--wait")
    assert ended.code == code
    assert ended.out == f"op-7k2m9x4q is {state} (vdc operation show op-7k2m9x4q)\n"


def test_retry_posts_nothing_and_follows_the_new_operation(api, vdc):
    api.on("POST", "instances/i-7d2kq9xw/retry", Answer(202, instance("starting", operation=operation("queued"))))
    api.on("GET", "operations/op-7k2m9x4q", operation())
    api.on("GET", "instances/i-7d2kq9xw", instance("running"))
    ended = vdc("instance", "retry", "i-7d2kq9xw", "--wait")
    assert (ended.code, api.requests[0].body) == (0, {})
    assert "is running" in ended.out

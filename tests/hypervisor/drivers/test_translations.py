"""libvirt's errors, states and wait statuses in the words of the contract."""

from __future__ import annotations

import signal
import subprocess

import libvirt
import pytest

from hypervisor.contract import Observed, Permanent, Transient
from hypervisor.drivers.libvirt import states
from hypervisor.drivers.libvirt.faults import speaking_plainly
from hypervisor.drivers.libvirt.lxc import caught_signals, meaning, stop_signal


def failure(domain: int, code: int, message: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError("call failed")
    error.err = (code, domain, message, libvirt.VIR_ERR_ERROR, "", "", "", 0, 0)
    return error


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        (libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_SYSTEM_ERROR),
        (libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_INTERNAL_ERROR),
        (libvirt.VIR_FROM_REMOTE, libvirt.VIR_ERR_RPC),
        (libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_OPERATION_TIMEOUT),
    ],
)
def test_a_line_that_broke_or_a_lock_that_was_held_is_transient(domain: int, code: int) -> None:
    with pytest.raises(Transient, match=r"^starting i-1: libvirtd did not answer"), speaking_plainly("starting i-1"):
        raise failure(domain, code, "End of file while reading data")


def test_a_refusal_is_permanent_and_carries_libvirts_words_code_and_advice() -> None:
    with pytest.raises(Permanent) as refusal, speaking_plainly("starting i-1"):
        raise failure(libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_INTERNAL_ERROR, "Could not open: Permission denied")
    assert refusal.value.message == "starting i-1: libvirt refused: Could not open: Permission denied (libvirt error 1)"
    assert "QEMU does not run as root" in refusal.value.advice


def test_a_guest_that_went_away_between_two_calls_is_looked_at_again() -> None:
    went_away = r"^powering off i-1: the guest went away meanwhile"
    with pytest.raises(Transient, match=went_away), speaking_plainly("powering off i-1"):
        raise failure(libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_NO_DOMAIN, "Domain not found")


def test_a_refused_login_is_not_tried_again() -> None:
    with pytest.raises(Permanent), speaking_plainly("connecting"):
        raise failure(libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_AUTH_FAILED, "authentication failed")


@pytest.mark.parametrize(
    ("state", "detail", "observed"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 0, Observed.RUNNING),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, Observed.RUNNING),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, Observed.RUNNING),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, Observed.PAUSED),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, Observed.HALTED),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, Observed.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, Observed.CRASHED),
    ],
)
def test_a_domains_state_has_one_meaning(state: int, detail: int, observed: Observed) -> None:
    assert states.of_domain(state, detail)[0] is observed


@pytest.mark.parametrize(
    ("status", "observed", "word"),
    [
        (signal.SIGINT, Observed.HALTED, "powered off"),
        (0, Observed.HALTED, "init ended"),
        (signal.SIGKILL, Observed.CRASHED, "SIGKILL"),
        (signal.SIGHUP, Observed.CRASHED, "reboot"),
        (3 << 8, Observed.CRASHED, "exit code 3"),
    ],
)
def test_the_status_of_an_init_has_one_meaning(status: int, observed: Observed, word: str) -> None:
    state, reason = meaning(status)
    assert state is observed
    assert word in reason


def test_each_init_is_told_to_power_off_in_its_own_words() -> None:
    assert stop_signal("systemd", frozenset()) == 37
    assert stop_signal("busybox", frozenset({signal.SIGTERM})) is signal.SIGTERM
    assert stop_signal("busybox", frozenset({signal.SIGTERM, signal.SIGUSR2})) is signal.SIGUSR2


def test_the_signals_that_a_process_handles_are_read_from_proc() -> None:
    script = "import signal, sys; signal.signal(signal.SIGUSR2, print); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert signal.SIGUSR2 in caught_signals(child.pid)
        assert signal.SIGUSR1 not in caught_signals(child.pid)
    assert caught_signals(child.pid) == frozenset()
    assert caught_signals(None) == frozenset()

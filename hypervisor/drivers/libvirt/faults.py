"""The border where libvirt's errors become the faults of the contract; nobody else catches libvirtError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from hypervisor.contract import Permanent, Transient

# Errors of the line to libvirtd, whatever their code: the daemon is away, was restarted, or is mute.
LINE = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
REFUSED = {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_UNAVAILABLE, libvirt.VIR_ERR_OPERATION_DENIED}
BUSY = {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY, libvirt.VIR_ERR_NO_CONNECT}

ADVICE = (
    ("Permission denied", "QEMU does not run as root: it must be able to read the file and pass all folders above it."),
    ("No such file or directory", "A file or device that the guest needs is not on this node; the message names it."),
    ("Cannot allocate memory", "The node has too little free memory for this guest."),
    ("No space left on device", "The node's disk is full."),
    ("Cannot get interface MTU", "The bridge is not there: the network was not built on this node."),
    ("cgroup", "libvirtd must run where its control groups are mounted; see its log."),
)


@contextmanager
def speaking_plainly(doing: str) -> Iterator[None]:
    """Translate what libvirt raises inside into Transient or Permanent; `doing` begins the sentence: "starting i-…"."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translated(error, doing) from error


def translated(error: libvirt.libvirtError, doing: str) -> Transient | Permanent:
    """The fault of the contract that says what `error` means."""
    code, domain = error.get_error_code(), error.get_error_domain()
    said = (error.get_error_message() or str(error)).strip()
    if (domain in LINE and code not in REFUSED) or code in BUSY:
        return Transient(
            f"{doing}: libvirtd did not answer: {said} (libvirt error {code})",
            advice="It is tried again. If it goes on: is libvirtd running, and what does its log say?",
        )
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return Transient(
            f"{doing}: the guest went away meanwhile: {said} (libvirt error {code})",
            advice="It is tried again, with a fresh look at the guest.",
        )
    advice = next((text for mark, text in ADVICE if mark in said), "libvirtd's log on the node may say more.")
    return Permanent(f"{doing}: libvirt refused: {said} (libvirt error {code})", advice=advice)


def is_gone(error: libvirt.libvirtError) -> bool:
    """The domain ended or went away between two of our calls: not a fault."""
    return error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)

"""What the KVM and LXC drivers share: finding domains of ours, powering off, observing, listening."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import libvirt
import structlog

from hypervisor.contract import (
    CommandRecord,
    DiskSpec,
    GuestFacts,
    GuestSpec,
    Hypervisor,
    Observation,
    Observed,
    Permanent,
    Watch,
)
from hypervisor.drivers.guest_notes import GuestNotes
from hypervisor.drivers.libvirt import states
from hypervisor.drivers.libvirt.connection import Connection, socket_uri
from hypervisor.drivers.libvirt.domain_xml import MARK_NAMESPACE, facts_of, stack_of
from hypervisor.drivers.libvirt.faults import is_gone, speaking_plainly
from hypervisor.drivers.libvirt.listener import Listener
from hypervisor.drivers.settings import DriverSettings

log = structlog.get_logger()

ASK_AGAIN_S = 5.0
LOOK_AGAIN_S = 0.1


class LibvirtDriver(ABC):
    """A driver whose guests are libvirt domains named by the uid of their instance.

    A domain exists while the guest runs, and for KVM until the end of a guest that ended by itself was seen to.
    How a guest ended is kept in notes on disk, since libvirt forgets it with the domain or with its own restart.
    """

    hypervisor: Hypervisor

    def __init__(self, settings: DriverSettings, libvirt_driver: str) -> None:
        self.settings = settings
        self.connection = Connection(socket_uri(libvirt_driver, settings.libvirt_socket))
        self.notes = GuestNotes(settings.node_dir / "guests", self.hypervisor.value)

    # Starting -----------------------------------------------------------------------------------------------------

    def ensure_running(self, spec: GuestSpec, watch: Watch) -> Observation:
        self._check(spec)
        with speaking_plainly(f"starting {spec.uid}"):
            domain = self._find(spec.uid)
            if domain is not None and _is_active(domain):
                return self._keep_running(spec, domain, watch)
            with ExitStack() as undo:
                if self.notes.adopt(spec.uid):
                    undo.callback(self.notes.forget, spec.uid)
                elif (last_end := self.notes.end_of(spec.uid)) is not None:
                    undo.callback(self.notes.ended, spec.uid, last_end.state, last_end.reason)
                self.notes.starting(spec.uid)
                watch.checkpoint()
                domain = self._start(spec, watch, undo)
                self.notes.began(spec.uid)
                undo.pop_all()
            return self._look_at(domain)

    def _keep_running(self, spec: GuestSpec, domain: libvirt.virDomain, watch: Watch) -> Observation:
        """The guest is there: see that it goes on and that what an earlier attempt left undone gets done."""
        if self.notes.adopt(spec.uid) or not self.notes.has_begun(spec.uid):
            self.notes.starting(spec.uid)
            self.notes.began(spec.uid)
        if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            with self._calling("resume", spec.uid, watch=watch):
                domain.resume()
        return self._look_at(domain)

    def _check(self, spec: GuestSpec) -> None:
        """Refuse a spec that cannot work, before anything is made."""
        if not spec.disks:
            raise Permanent(f"{spec.uid} has no disk", advice="A guest needs at least its boot volume.")
        for disk in spec.disks:
            if not Path(disk.path).is_file():
                raise Permanent(
                    f"the disk {disk.uid} of {spec.uid} is not at {disk.path}",
                    advice="The volume was never built on this node, or its file was moved away by hand.",
                )

    @abstractmethod
    def _start(self, spec: GuestSpec, watch: Watch, undo: ExitStack) -> libvirt.virDomain:
        """Make what the guest needs, start it; what is made here and must not stay after a failure goes to `undo`."""

    # Ending -------------------------------------------------------------------------------------------------------

    def ensure_halted(self, spec: GuestSpec, watch: Watch, *, grace_s: float) -> Observation:
        with speaking_plainly(f"powering off {spec.uid}"):
            domain = self._find(spec.uid)
            if domain is None or not _is_active(domain):
                reason = "was off"
            else:
                with self.notes.asking(spec.uid):
                    reason = self._power_off(spec, domain, watch, grace_s)
            self.notes.halted(spec.uid, reason)
            self._give_back(spec.uid)
        return Observation(spec.uid, Observed.HALTED, reason)

    def _power_off(self, spec: GuestSpec, domain: libvirt.virDomain, watch: Watch, grace_s: float) -> str:
        """Ask again and again, then pull the plug. Returns how it went."""
        began = time.monotonic()
        ask_at = began
        while (now := time.monotonic()) < began + grace_s:
            if not _is_active(domain):
                return "powered off when asked"
            if _is_paused(domain):
                break  # a paused guest hears nothing
            if now >= ask_at:
                self._ask_to_power_off(spec, domain, watch)
                ask_at = now + ASK_AGAIN_S
            watch.progress(int(now - began), int(grace_s), "seconds")
            watch.pause(min(LOOK_AGAIN_S, max(0.0, began + grace_s - now)))
        watch.checkpoint()
        if not _is_active(domain):
            return "powered off when asked"
        with self._calling("destroy", spec.uid, watch=watch):
            self._destroy(domain)
        return f"unplugged after {grace_s:.0f} s without an answer" if grace_s else "unplugged"

    @abstractmethod
    def _ask_to_power_off(self, spec: GuestSpec, domain: libvirt.virDomain, watch: Watch) -> None:
        """Say once to the guest that it shall power off."""

    def ensure_absent(self, spec: GuestSpec, watch: Watch) -> Observation:
        with speaking_plainly(f"removing {spec.uid}"):
            watch.checkpoint()
            domain = self._find(spec.uid)
            if domain is not None and _is_active(domain):
                self.notes.mark_asked(spec.uid)
                with self._calling("destroy", spec.uid, watch=watch):
                    self._destroy(domain)
            self._give_back(spec.uid)
            self.notes.forget(spec.uid)
        if spec.console_log:
            log = Path(spec.console_log)
            for path in [log, *log.parent.glob(f"{log.name}.[0-9]*")]:
                path.unlink(missing_ok=True)
        return Observation(spec.uid, Observed.ABSENT)

    def release(self, uid: str) -> None:
        with speaking_plainly(f"clearing up after {uid}"):
            domain = self._find(uid)
            if domain is not None and _is_active(domain):
                raise Permanent(f"{uid} still runs: nothing was cleared up", advice="Power it off first.")
            self.observe(uid)  # the end must be noted before the domain that tells of it goes
            self._give_back(uid)

    @abstractmethod
    def _give_back(self, uid: str) -> None:
        """Take away what belongs to a running guest only. It does not run; may be called again."""

    def _destroy(self, domain: libvirt.virDomain) -> None:
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise

    # Observing ----------------------------------------------------------------------------------------------------

    def observe(self, uid: str) -> Observation:
        with speaking_plainly(f"looking at {uid}"):
            domain = self._find(uid)
            return self._remembered(uid) if domain is None else self._look_at(domain)

    def describe(self, uid: str) -> GuestFacts | None:
        with speaking_plainly(f"looking at {uid}"):
            domain = self._find(uid)
            if domain is None:
                return None
            try:
                text = domain.XMLDesc()
                disks = self._disks_of(domain, text)
            except libvirt.libvirtError as error:
                if is_gone(error):
                    return None
                raise
        return facts_of(text, disks)

    @abstractmethod
    def _disks_of(self, domain: libvirt.virDomain, domain_xml: str) -> tuple[DiskSpec, ...]:
        """The disks of a guest, the one that it boots from first."""

    def observe_all(self) -> list[Observation]:
        with speaking_plainly(f"looking at all {self.hypervisor} guests"):
            domains = {domain.name(): domain for domain in self.connection.get().listAllDomains()}
            ours = {uid: domain for uid, domain in domains.items() if self._is_ours(domain)}
            seen = [self._look_at(domain) for domain in ours.values()]
        return seen + [self._remembered(uid) for uid in self.notes.known() if uid not in ours]

    def listen(self, heard: Callable[[Observation], None], lost: Callable[[str], None]) -> Callable[[], None]:
        with speaking_plainly(f"listening to {self.hypervisor} guests"):
            return Listener(self, heard, lost).start()

    def _look_at(self, domain: libvirt.virDomain) -> Observation:
        """What a domain of ours says of itself, and the notes where it says nothing."""
        uid = domain.name()
        try:
            state, detail = domain.state()
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
            return self._remembered(uid)
        observed, reason = states.of_domain(state, detail)
        if observed in (Observed.RUNNING, Observed.PAUSED):
            return Observation(uid, observed, reason)
        if self.notes.has_begun(uid) and self.notes.end_of(uid) is None:
            return self._note_end(uid, *states.of_shutoff(detail))
        return self._remembered(uid)

    def _remembered(self, uid: str) -> Observation:
        """What the notes say of a guest that libvirt does not run."""
        if not self.notes.knows(uid):  # nobody's, or a guest of the other driver on this node
            return Observation(uid, Observed.ABSENT)
        if (ended := self.notes.end_of(uid)) is not None:
            return ended
        if not self.notes.has_begun(uid):
            return Observation(uid, Observed.ABSENT)
        if self.notes.was_asked(uid):
            return Observation(uid, Observed.HALTED, "powered off when asked")
        return self._unexplained(uid)

    def _unexplained(self, uid: str) -> Observation:
        """It ran, runs no more, and nobody noted why: without evidence of an orderly end it counts as crashed."""
        return Observation(uid, Observed.CRASHED, "ended while nobody watched")

    def _note_end(self, uid: str, state: Observed, reason: str) -> Observation:
        if self.notes.was_asked(uid):
            state, reason = Observed.HALTED, "powered off when asked"
        held = self.notes.ended(uid, state, reason)
        return held if self.notes.knows(uid) else Observation(uid, Observed.ABSENT)  # removed by us meanwhile

    # What the listener calls, on its own thread -------------------------------------------------------------------

    def attend(self, connection: libvirt.virConnect, doubt: Callable[[str], None]) -> None:  # noqa: B027
        """Listening begins: take up what needs a lasting watcher, which may `doubt` that a guest still runs."""

    def attend_no_more(self) -> None:  # noqa: B027
        """Listening ended."""

    def guest_began(self, uid: str) -> None:  # noqa: B027
        """A guest was started, or started itself anew."""

    def guest_goes_down(self, uid: str, detail: int) -> None:
        """A guest is about to end, and only now one can tell that it did not itself wish to."""
        if detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST:
            self._note_end(uid, Observed.CRASHED, "its process was told to end by a signal")

    def went_unnoticed(self, uid: str) -> bool:
        """A watcher doubts that this guest runs. True: it ended, and libvirt did not notice."""
        return False

    def guest_ended(self, uid: str, detail: int) -> None:
        """A guest ended; `detail` is libvirt's word of the STOPPED event."""
        self._note_end(uid, *states.of_stopped(detail))

    # Finding ------------------------------------------------------------------------------------------------------

    def _find(self, uid: str) -> libvirt.virDomain | None:
        """Our domain of that name, None if there is none. Permanent: the name belongs to a stranger.

        A libvirtd that was away when a container ended keeps the shadow of it: a transient domain that is off and
        tells nothing. It counts as none.
        """
        try:
            domain = self.connection.get().lookupByName(uid)
            mark = self._mark(domain)
        except libvirt.libvirtError as error:
            if is_gone(error):
                return None
            raise
        if mark == self.settings.stack:
            return domain
        raise Permanent(
            f"a domain named {uid} exists that does not belong to the stack {self.settings.stack}",
            advice=f"Whose is it? See `virsh dumpxml {uid}` on the node. It was not touched.",
        )

    def _is_ours(self, domain: libvirt.virDomain) -> bool:
        try:
            return self._mark(domain) == self.settings.stack
        except libvirt.libvirtError as error:
            if is_gone(error):
                return False
            raise

    def _mark(self, domain: libvirt.virDomain) -> str:
        """The stack that a domain belongs to, "" when it is a stranger's."""
        try:
            return stack_of(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return ""
            raise

    @contextmanager
    def _calling(self, *call: str, watch: Watch | None = None) -> Iterator[None]:
        """Around one call that changes something: a line in the log and, with `watch`, a command in the story."""
        begun = time.monotonic()
        try:
            yield
        except libvirt.libvirtError as error:
            log.warning(f"libvirt {' '.join(call)} failed", ms=_ms_since(begun), error=error.get_error_message())
            raise
        log.info(f"libvirt {' '.join(call)}", ms=_ms_since(begun))
        if watch is not None:
            watch.ran(CommandRecord(argv=("libvirt", *call), exit_code=0))


def _ms_since(begun: float) -> float:
    return round((time.monotonic() - begun) * 1000, 1)


def _is_active(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if is_gone(error):
            return False
        raise


def _is_paused(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)
    except libvirt.libvirtError as error:
        if is_gone(error):
            return False
        raise

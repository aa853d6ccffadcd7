"""The DHCP server of one network: a dnsmasq that answers the hosts it was told of, and no others.

Everything that changes while it runs is in two files that it reads again on SIGHUP: `hosts` (MAC, address, name) and
`options` (router, name servers). A signal is taken before any packet that arrives after it, so a guest that is
plugged after `ensure_dhcp` returned gets its answer at the first DISCOVER. What is on the command line needs a new
process; whether the running one is right is read from its own command line in /proc, never from a pid file alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import pwd
import re
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from hypervisor.commands import run
from hypervisor.contract import LeaseSpec, NetworkSpec, Permanent, Transient, Watch
from hypervisor.whole_files import write_whole

log = structlog.get_logger()

USER, GROUP = "nobody", "nogroup"
LOG_LIMIT_BYTES = 1 << 20
END_TIMEOUT_S = 5.0
_TOLD = "told"
# systemd-resolved puts 127.0.0.53 into the first and the true servers into the second.
_RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
# dnsmasq takes these words in a host's line for a lease time or an order.
_NOT_A_NAME = re.compile(r"\d+[wdhms]?|infinite|ignore", re.IGNORECASE)


def render_hosts(spec: NetworkSpec) -> str:
    """The hosts file: one line per lease, in the order of addresses. Raises Permanent for a lease that cannot be."""
    network = ipaddress.ip_network(spec.ipv4_network)
    return "".join(_host_line(lease, network, spec) for lease in sorted(spec.leases, key=_address))


def _host_line(lease: LeaseSpec, network: ipaddress.IPv4Network | ipaddress.IPv6Network, spec: NetworkSpec) -> str:
    if not _MAC.fullmatch(lease.mac):
        raise Permanent(f"The lease of {lease.ipv4} in network {spec.uid} has the MAC {lease.mac!r}, which is none.")
    if _address(lease) not in network:
        raise Permanent(f"The lease of {lease.mac} has the address {lease.ipv4}, which is not in {network}.")
    named = _HOSTNAME.fullmatch(lease.hostname) and not _NOT_A_NAME.fullmatch(lease.hostname)
    return f"{lease.mac},{lease.ipv4},{lease.hostname}\n" if named else f"{lease.mac},{lease.ipv4}\n"


def _address(lease: LeaseSpec) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(lease.ipv4)
    except ValueError as fault:
        raise Permanent(
            f"The lease of {lease.mac} has the address {lease.ipv4!r}, which is no IPv4 address."
        ) from fault


def render_options(spec: NetworkSpec, host_servers: tuple[str, ...] = ()) -> str:
    """The options file: router and name servers (the network's own, else the host's)."""
    servers = spec.dns or host_servers
    lines = [f"option:router,{spec.gateway}"]
    if servers:
        lines.append(f"option:dns-server,{','.join(servers)}")
    return "".join(f"{line}\n" for line in lines)


def name_servers(resolv_confs: tuple[Path, ...] = _RESOLV_CONFS) -> tuple[str, ...]:
    """The host's IPv4 name servers that a guest can reach too: those of the first file that names any but loopback."""
    for path in resolv_confs:
        try:
            words = [line.split() for line in path.read_text(errors="replace").splitlines()]
        except OSError:
            continue
        named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        reachable = tuple(name for name in named if _is_reachable(name))
        if reachable:
            return reachable
    return ()


def _is_reachable(name: str) -> bool:
    try:
        return not ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def render_argv(spec: NetworkSpec, run_dir: Path, bridge_index: int) -> list[str]:
    """How dnsmasq is called.

    The tag carries the bridge's interface index: a socket bound to a bridge is deaf on the one made after it, so a
    new bridge must mean a new process.
    """
    network = ipaddress.ip_network(spec.ipv4_network)
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-hosts",
        "--no-resolv",
        "--no-ping",
        f"--interface={spec.bridge}",
        "--bind-interfaces",
        "--except-interface=lo",
        f"--dhcp-range=set:bridge{bridge_index},{network.network_address},static,{network.netmask},1h",
        "--dhcp-authoritative",
        "--dhcp-ignore=tag:!known",
        f"--dhcp-hostsfile={run_dir / 'hosts'}",
        f"--dhcp-optsfile={run_dir / 'options'}",
        f"--dhcp-leasefile={run_dir / 'leases'}",
        f"--pid-file={run_dir / 'dnsmasq.pid'}",
        f"--log-facility={run_dir / 'dnsmasq.log'}",
        "--quiet-dhcp",
        f"--user={USER}",
        f"--group={GROUP}",
    ]


def dhcp_missing(spec: NetworkSpec, run_dir: Path, bridge_index: int | None) -> list[str]:
    """What is wrong with the DHCP server, as sentences. `bridge_index` None: there is no bridge."""
    process = find_dnsmasq(run_dir)
    if process is None:
        return [f"the DHCP server of network {spec.uid} does not run"]
    missing = []
    if bridge_index is None or process[1] != render_argv(spec, run_dir, bridge_index):
        missing.append(f"the DHCP server of network {spec.uid} (pid {process[0]}) runs with other options")
    if not _is_told(_files(spec, run_dir), run_dir):
        missing.append(f"the DHCP server of network {spec.uid} was not told the present leases and options")
    missing += [f"the DHCP server of network {spec.uid} still lends {lent}" for lent in _wrongly_lent(spec, run_dir)]
    if _log_is_full(run_dir):
        missing.append(f"the log of the DHCP server of network {spec.uid} is full")
    return missing


def ensure_dhcp(spec: NetworkSpec, run_dir: Path, bridge_index: int, watch: Watch | None = None) -> None:
    """Make the DHCP server run with these options and hosts; leaves it alone when all is as it shall be."""
    _check_that_user_can_read(run_dir)
    argv = render_argv(spec, run_dir, bridge_index)
    process = find_dnsmasq(run_dir)
    lent = _wrongly_lent(spec, run_dir)
    if process is not None and (process[1] != argv or lent):
        end_dnsmasq(run_dir)
        process = None
    elif process is not None and _log_is_full(run_dir):
        _turn_log(run_dir, process[0])
    files = _files(spec, run_dir)
    if process is not None and _is_told(files, run_dir):
        return
    # Until it is told, `told` is missing: whoever is stopped in between is followed by one who tells it again.
    (run_dir / _TOLD).unlink(missing_ok=True)
    for path, text in files.items():
        write_whole(path, text)
    if process is None:
        _forget(lent, run_dir)
        _start(spec, argv, watch)
        log.info("DHCP is served", network=spec.uid, leases=len(spec.leases))
    else:
        _signal(process[0], run_dir, signal.SIGHUP)
        log.info("DHCP knows the leases", network=spec.uid, leases=len(spec.leases))
    write_whole(run_dir / _TOLD, _digest(files))


def end_dnsmasq(run_dir: Path) -> None:
    """End this run_dir's dnsmasq, wait for its end, and remove its pid file. None runs: nothing to do."""
    while (process := find_dnsmasq(run_dir)) is not None:
        ended = _end(process[0], run_dir, signal.SIGTERM) or _end(process[0], run_dir, signal.SIGKILL)
        if not ended:
            raise Transient(f"dnsmasq (pid {process[0]}) did not end within {2 * END_TIMEOUT_S:g} seconds.")
    (run_dir / "dnsmasq.pid").unlink(missing_ok=True)


def find_dnsmasq(run_dir: Path) -> tuple[int, list[str]] | None:
    """Pid and command line of the dnsmasq that serves from `run_dir`; None when none runs.

    The pid file is asked first and believed only if that process's command line names it; a server whose pid file was
    lost is found all the same.
    """
    for pid in _candidates(run_dir):
        argv = _argv_of(pid)
        if _serves_from(argv, run_dir):
            return pid, argv
    return None


def _candidates(run_dir: Path) -> Iterator[int]:
    with suppress(FileNotFoundError, ValueError):
        yield int((run_dir / "dnsmasq.pid").read_text())
    yield from (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _argv_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _serves_from(argv: list[str], run_dir: Path) -> bool:
    return argv[:1] == ["dnsmasq"] and f"--pid-file={run_dir / 'dnsmasq.pid'}" in argv


def _start(spec: NetworkSpec, argv: list[str], watch: Watch | None) -> None:
    # dnsmasq goes to the background by itself, and not before its sockets are open; then this call returns.
    done = run(argv, watch=watch)
    if done.returncode != 0:
        raise Transient(
            f"The DHCP server of network {spec.uid} did not start: {done.stderr.strip()[-500:]}",
            advice=f"Look whether another DHCP server holds port 67 on {spec.bridge}: ss -ulpn 'sport = :67'.",
        )


def _signal(pid: int, run_dir: Path, number: signal.Signals) -> None:
    """Send a signal to our dnsmasq and to no process that got its pid since."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _serves_from(_argv_of(pid), run_dir):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _end(pid: int, run_dir: Path, number: signal.Signals) -> bool:
    """Send a signal that ends it; True once it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if _serves_from(_argv_of(pid), run_dir):
            signal.pidfd_send_signal(handle, number)
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        return bool(ended.poll(END_TIMEOUT_S * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _files(spec: NetworkSpec, run_dir: Path) -> dict[Path, str]:
    """What dnsmasq reads again on SIGHUP."""
    return {
        run_dir / "hosts": render_hosts(spec),
        run_dir / "options": render_options(spec, () if spec.dns else name_servers()),
    }


def _is_told(files: dict[Path, str], run_dir: Path) -> bool:
    return _text(run_dir / _TOLD) == _digest(files) and all(_text(path) == text for path, text in files.items())


def _digest(files: dict[Path, str]) -> str:
    return hashlib.sha256("\0".join(files.values()).encode()).hexdigest()


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _wrongly_lent(spec: NetworkSpec, run_dir: Path) -> list[str]:
    """Addresses that dnsmasq has lent to another MAC than the one which holds them now ("10.77.0.2 to 52:54:…").

    It would refuse such an address to its new holder until the old lease ends, an hour later, and has no order to
    forget a lease: it must be ended, the line removed, and started again.
    """
    holders = {lease.ipv4: lease.mac for lease in spec.leases}
    lines = (line.split() for line in (_text(run_dir / "leases") or "").splitlines())
    return [f"{line[2]} to {line[1]}" for line in lines if len(line) > 2 and holders.get(line[2], line[1]) != line[1]]


def _forget(lent: list[str], run_dir: Path) -> None:
    if not lent:
        return
    lines = (_text(run_dir / "leases") or "").splitlines(keepends=True)
    kept = [line for line in lines if " to ".join(line.split()[2:0:-1]) not in lent]
    write_whole(run_dir / "leases", "".join(kept))


def _log_is_full(run_dir: Path) -> bool:
    try:
        return (run_dir / "dnsmasq.log").stat().st_size > LOG_LIMIT_BYTES
    except FileNotFoundError:
        return False


def _turn_log(run_dir: Path, pid: int) -> None:
    """Keep one old log and let dnsmasq go on in a new one, made here because it may not make files in `run_dir`."""
    log = run_dir / "dnsmasq.log"
    log.replace(run_dir / "dnsmasq.log.1")
    write_whole(log, "", mode=0o640)
    account = pwd.getpwnam(USER)
    os.chown(log, account.pw_uid, account.pw_gid)
    _signal(pid, run_dir, signal.SIGUSR2)


def _check_that_user_can_read(run_dir: Path) -> None:
    """dnsmasq reads its files again as an unprivileged user: every directory above must let it pass."""
    for directory in (run_dir, *run_dir.parents):
        if not directory.stat().st_mode & 0o001:
            raise Permanent(
                f"The DHCP server, which runs as user {USER}, may not enter {directory}.",
                advice=f"chmod o+x {directory}",
            )

"""Domain XML, built as a tree from a guest's spec by pure functions; tests/golden/ shows what comes out."""

from __future__ import annotations

import uuid
from pathlib import Path
from xml.etree import ElementTree as ET

from hypervisor.contract import DiskSpec, GuestFacts, GuestSpec, NicSpec
from hypervisor.drivers.libvirt.idmap import ID_COUNT

# The mark of our domains: in their metadata, found again by this name.
MARK_NAMESPACE = "urn:vdc:guest:1"
MARK_PREFIX = "vdc"
_UUIDS = uuid.uuid5(uuid.NAMESPACE_URL, MARK_NAMESPACE)

CPU_PERIOD_US = 100_000
HOT_PLUG_PORTS = 8
SERIAL_BYTES = 20  # what virtio-blk shows of a serial


def kvm_domain(spec: GuestSpec, *, stack: str, acceleration: str, seed_iso: Path) -> str:
    """The domain of a KVM guest. `acceleration` is "kvm" or "tcg"."""
    domain = _domain(spec, stack, "kvm" if acceleration == "kvm" else "qemu")
    system = ET.SubElement(domain, "os")
    _add(system, "type", "hvm", arch=spec.arch, machine="q35")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    ET.SubElement(domain, "cpu", mode="host-passthrough" if acceleration == "kvm" else "maximum")
    ET.SubElement(domain, "clock", offset="utc")
    _life(domain)
    devices = ET.SubElement(domain, "devices")
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(HOT_PLUG_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    ET.SubElement(devices, "controller", type="usb", model="none")
    for index, disk in enumerate(sorted(spec.disks, key=lambda disk: not disk.boot)):
        _kvm_disk(devices, disk, index)
    seed = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(seed, "driver", name="qemu", type="raw")
    ET.SubElement(seed, "source", file=str(seed_iso))
    ET.SubElement(seed, "target", dev=_disk_name(len(spec.disks)), bus="virtio")
    ET.SubElement(seed, "readonly")
    _add(seed, "serial", "seed")
    for nic in spec.nics:
        interface = _interface(devices, nic)
        ET.SubElement(interface, "model", type="virtio")
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=spec.console_log, append="on")
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")
    return _text(domain)


def lxc_domain(spec: GuestSpec, *, stack: str, root: Path, seed_directory: Path) -> str:
    """The domain of an unprivileged LXC guest whose root file system is shown at `root`."""
    domain = _domain(spec, stack, "lxc")
    tune = ET.SubElement(domain, "cputune")
    _add(tune, "period", str(CPU_PERIOD_US))
    _add(tune, "quota", str(CPU_PERIOD_US * spec.vcpus))
    system = ET.SubElement(domain, "os")
    _add(system, "type", "exe", arch=spec.arch)
    _add(system, "init", "/sbin/init")
    ids = ET.SubElement(domain, "idmap")
    for kind in ("uid", "gid"):
        ET.SubElement(ids, kind, start="0", target=str(spec.uid_base), count=str(ID_COUNT))
    # Without privnet a guest without a network card would share the network of the host.
    ET.SubElement(ET.SubElement(domain, "features"), "privnet")
    ET.SubElement(domain, "clock", offset="utc")
    _life(domain)
    devices = ET.SubElement(domain, "devices")
    _directory(devices, root, "/")
    ET.SubElement(_directory(devices, seed_directory, "/var/lib/cloud/seed/nocloud"), "readonly")
    for index, nic in enumerate(spec.nics):
        interface = _interface(devices, nic)
        ET.SubElement(interface, "guest", dev=f"eth{index}")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target", type="lxc", port="0")
    return _text(domain)


def console_of(domain_xml: str) -> tuple[str, str]:
    """The pty and the log file of the console of a running domain of ours; "" for what it has not."""
    domain = ET.fromstring(domain_xml)  # noqa: S314 libvirtd's own words, not a stranger's
    console = domain.find("devices/console")
    mark = domain.find(f"metadata/{{{MARK_NAMESPACE}}}guest")
    tty = "" if console is None else console.get("tty", "")
    return tty, "" if mark is None else mark.get("console-log", "")


def disk_files_of(domain_xml: str) -> list[tuple[str, str, bool]]:
    """(path, format, is the one that it boots from) of each disk that a domain may write, that one first."""
    domain = ET.fromstring(domain_xml)  # noqa: S314
    found = [
        (disk.find("source").get("file", ""), disk.find("driver").get("type", ""), disk.find("boot") is not None)
        for disk in domain.iterfind("devices/disk")
        if disk.find("readonly") is None and disk.find("source") is not None
    ]
    return sorted(found, key=lambda disk: not disk[2])


def facts_of(domain_xml: str, disks: tuple[DiskSpec, ...]) -> GuestFacts:
    """What a domain says that it is made of; its disks are known already."""
    domain = ET.fromstring(domain_xml)  # noqa: S314
    nics = (
        NicSpec(
            mac=interface.find("mac").get("address", ""),
            ipv4="",
            bridge=interface.find("source").get("bridge", ""),
            host_interface=interface.find("target").get("dev", ""),
        )
        for interface in domain.iterfind("devices/interface[@type='bridge']")
    )
    memory_kib = int(domain.findtext("memory", "0"))  # libvirt always tells it in KiB
    return GuestFacts(
        domain.findtext("name", ""), int(domain.findtext("vcpu", "1")), memory_kib // 1024, disks, tuple(nics)
    )


def stack_of(mark_xml: str) -> str:
    """The stack named in the metadata element of a domain."""
    return ET.fromstring(mark_xml).get("stack", "")  # noqa: S314


def _domain(spec: GuestSpec, stack: str, kind: str) -> ET.Element:
    domain = ET.Element("domain", type=kind)
    _add(domain, "name", spec.uid)
    _add(domain, "uuid", str(uuid.uuid5(_UUIDS, f"{stack}/{spec.uid}")))
    ET.SubElement(
        ET.SubElement(domain, "metadata"),
        f"{{{MARK_NAMESPACE}}}guest",
        {"uid": spec.uid, "stack": stack, "console-log": spec.console_log},
    )
    _add(domain, "memory", str(spec.memory_mib), unit="MiB")
    _add(domain, "vcpu", str(spec.vcpus), placement="static")
    return domain


def _life(domain: ET.Element) -> None:
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _add(domain, event, action)


def _kvm_disk(devices: ET.Element, disk: DiskSpec, index: int) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.format, discard="unmap")
    ET.SubElement(element, "source", file=disk.path)
    ET.SubElement(element, "target", dev=_disk_name(index), bus="virtio")
    _add(element, "serial", disk.uid[:SERIAL_BYTES])
    if disk.boot:
        ET.SubElement(element, "boot", order="1")


def _disk_name(index: int) -> str:
    return f"vd{'abcdefghijklmnopqrstuvwxyz'[index]}"


def _directory(devices: ET.Element, source: Path, target: str) -> ET.Element:
    file_system = ET.SubElement(devices, "filesystem", type="mount", accessmode="passthrough")
    ET.SubElement(file_system, "source", dir=str(source))
    ET.SubElement(file_system, "target", dir=target)
    return file_system


def _interface(devices: ET.Element, nic: NicSpec) -> ET.Element:
    interface = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(interface, "mac", address=nic.mac)
    ET.SubElement(interface, "source", bridge=nic.bridge)
    ET.SubElement(interface, "target", dev=nic.host_interface)
    return interface


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _text(domain: ET.Element) -> str:
    ET.register_namespace(MARK_PREFIX, MARK_NAMESPACE)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"

"""What `show` tells of one instance, image, node or volume."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from cli.render.page import Page
from cli.render.units import full_time, memory, size, when
from cli.render.words import operation_id, state_style, word

Item = dict[str, Any]


def instance_sheet(instance: Item, width: int) -> list[Text]:
    page = _page("Instance", instance, width)
    _state(page, instance)
    observed = instance.get("observed") or {}
    seen = f", seen {when(observed['at'])}" if observed.get("at") else ""
    reason = f" ({word(observed['reason'])})" if observed.get("reason") else ""
    page.field("observed", f"{word(observed.get('state'))}{reason}{seen}", style=state_style(observed.get("state")))
    page.field("wanted", word(instance.get("wanted")))
    _error(page, instance)
    page.field("addresses", word(instance.get("addresses")))
    page.field("host name", word(instance.get("hostname")))
    page.field("image", word(instance.get("image")))
    page.field("node", f"{word(instance.get('node'))} ({word(instance.get('hypervisor'))})")
    page.field("size", f"{word(instance.get('vcpus'))} vCPU, {memory(instance.get('memory_mib'))} of memory")
    for volume in instance.get("volumes") or []:
        boot = ", boots from it" if volume.get("boot") else ""
        page.field(
            "volume", f"{word(volume.get('id'))} {size(volume.get('size_bytes'))} {word(volume.get('state'))}{boot}"
        )
    for vif in instance.get("vifs") or []:
        ends = f"{word(vif.get('ipv4'))} {word(vif.get('mac'))} on {word(vif.get('network'))}"
        page.field("interface", f"{word(vif.get('id'))} {ends}")
    page.field("ssh keys", word(instance.get("ssh_keys")))
    _ending(page, instance)
    return page.lines


def image_sheet(image: Item, width: int) -> list[Text]:
    page = _page("Image", image, width)
    _state(page, image)
    _error(page, image)
    init = f", init {word(image['init'])}" if image.get("init") else ""
    page.field(
        "for", f"{word(image.get('hypervisor'))} on {word(image.get('arch'))}, {word(image.get('os_type'))}{init}"
    )
    page.field("root device", word(image.get("root_device")))
    page.field("size", f"{size(image.get('size_bytes'))}, stored as {size(image.get('stored_size_bytes'))}")
    page.field("sha256", word(image.get("sha256")))
    page.field("stored in", word(image.get("backup_object")))
    page.field("public", word(image.get("is_public")))
    _ending(page, image)
    return page.lines


def node_sheet(node: Item, width: int) -> list[Text]:
    page = _page("Node", node, width)
    closed = "" if node.get("scheduling_enabled", True) else ", takes no new instances"
    page.field("status", f"{word(node.get('status'))}{closed}", style=state_style(node.get("status")))
    page.field("heartbeat", when(node.get("heartbeat_at")))
    page.field("kinds", f"{word(node.get('hypervisors'))} on {word(node.get('arch'))}")
    page.field("kvm runs by", word(node.get("acceleration")))
    page.field("vcpus", f"{word(node.get('vcpus_used'))} of {word(node.get('vcpus'))} used")
    page.field("memory", f"{memory(node.get('memory_mib_used'))} of {memory(node.get('memory_mib'))} used")
    page.field("disk", f"{size(node.get('disk_bytes_used'))} of {size(node.get('disk_bytes'))} used")
    for lane, canary in (node.get("lanes") or {}).items():
        page.field(f"lane {lane}", _lane(canary), style="yellow" if canary.get("silent_since") else "")
    page.field("boot id", word(node.get("boot_id")))
    for warning in node.get("warnings") or []:
        page.field("warning", word(warning), style="yellow")
    _ending(page, node)
    return page.lines


def _lane(canary: Item) -> str:
    """How its last canary fared."""
    if canary.get("silent_since"):
        return f"has not answered since {when(canary['silent_since'])}"
    if not canary.get("answered_at"):
        return "was not asked yet"
    return f"answers in {canary['round_trip_ms']} ms, last {when(canary.get('answered_at'))}"


def volume_sheet(volume: Item, width: int) -> list[Text]:
    page = _page("Volume", volume, width)
    _state(page, volume)
    _error(page, volume)
    page.field("size", f"{size(volume.get('size_bytes'))} ({word(volume.get('format'))})")
    boot = " (boots from it)" if volume.get("boot") else ""
    page.field("instance", f"{word(volume.get('instance'))}{boot}")
    page.field("image", word(volume.get("image")))
    page.field("node", word(volume.get("node")))
    _ending(page, volume)
    return page.lines


def _page(noun: str, item: Item, width: int) -> Page:
    page = Page(width)
    name = f"  {word(item['name'])}" if item.get("name") else ""
    page.line((f"{noun} {word(item.get('id'))}", "bold"), name)
    page.blank()
    return page


def _state(page: Page, item: Item) -> None:
    page.field("state", word(item.get("state")), style=state_style(item.get("state")))
    busy = operation_id(item)
    if busy:
        page.field("busy with", f"{busy} (vdc operation watch {busy})", style="yellow")


def _error(page: Page, item: Item) -> None:
    error = item.get("error")
    if not error:
        return
    page.field("error", word(error.get("message")), style="bold red")
    if error.get("advice"):
        page.field("advice", word(error["advice"]))
    if error.get("operation"):
        page.field("", f"The whole story: vdc operation show {error['operation']}")


def _ending(page: Page, item: Item) -> None:
    if item.get("account"):
        page.field("account", word(item["account"]))
    page.field("created", full_time(item.get("created_at")))
    page.field("allowed now", word(item.get("allowed_verbs")))

"""What a node has of ours that no row knows is listed, and becomes something else only because an operator asked."""

from __future__ import annotations

import pytest
from django.db.models import QuerySet

import hypervisor.strays
from core.errors import Conflict, Invalid, NotFound, Permanent
from hypervisor.contract import DiskSpec, GuestFacts, NicSpec, Observation, Observed
from hypervisor.models import NodeRoom, Stray
from hypervisor.placement import NoRoom
from instances import observing, services, strays
from instances.models import Instance
from networks.models import Lease, Network
from operations.models import Event
from tests import datacenter
from volumes.models import Volume

MIB = 2**20
NAME = "i-stray000"


def made(name: str = NAME, **changes) -> GuestFacts:
    facts = {
        "vcpus": 2,
        "memory_mib": 512,
        "disks": (DiskSpec(f"vol-{name[2:]}", f"fake:vol-{name[2:]}.raw", "raw", 64 * MIB, boot=True),),
        "nics": (NicSpec("52:54:00:00:00:07", "10.99.0.77", "vtbr0", "v0s7n0"),),
    }
    return GuestFacts(name, **facts | changes)


@pytest.fixture
def appear(world):
    """`appear(state)`: a guest that no row knows is seen in this state; returns its stray."""

    def appear(state: Observed = Observed.RUNNING, facts: GuestFacts | None = None, *, known: bool = True) -> Stray:
        facts = facts or made()
        world.hypervisor.guests[facts.uid] = state
        if known:
            world.hypervisor.made[facts.uid] = facts
        look(world)
        return Stray.objects.get(name=facts.uid)

    return appear


def look(world) -> None:
    observing.seen_all(world.node, world.hypervisor.observe_all())


def adopt(world, stray, **wish):
    return strays.adopt_stray(
        stray, account=datacenter.account(), **{"image": world.image} | wish, requested_by="operator"
    )


def room(world) -> tuple[int, int, int]:
    row = NodeRoom.objects.get(node=world.node)
    return row.vcpus_used, row.memory_mib_used, row.disk_bytes_used


# --- seen ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [Observed.RUNNING, Observed.PAUSED, Observed.HALTED, Observed.CRASHED])
def test_a_guest_that_no_row_knows_is_listed_with_what_it_is_made_of(world, appear, state):
    stray = appear(state)
    assert (stray.kind, stray.hypervisor, stray.observed, stray.state) == ("guest", "fake", state.value, "seen")
    assert stray.facts["vcpus"] == 2
    assert stray.facts["disks"][0]["uid"] == "vol-stray000"
    assert strays.strays_of(world.node) == [stray]


def test_it_is_told_once_and_its_sight_is_renewed(world, appear):
    first = appear()
    world.hypervisor.guests[NAME] = Observed.PAUSED
    look(world)
    again = Stray.objects.get()
    assert (again.uid, again.observed) == (first.uid, "paused")
    assert again.seen_at > first.seen_at
    [event] = Event.objects.filter(name="node.stray")
    assert NAME in event.message
    assert world.node.uid in event.message


def test_what_is_seen_no_more_goes_from_the_list_with_an_event(world, appear):
    appear()
    del world.hypervisor.guests[NAME]
    look(world)
    assert not Stray.objects.exists()
    assert NAME in Event.objects.get(name="node.stray.gone").message


def test_a_line_that_tells_of_an_unknown_guest_makes_it_a_stray_if_it_is_still_there(world):
    observing.seen(world.node, Observation(NAME, Observed.RUNNING))
    assert not Stray.objects.exists(), "what the line told is over"
    world.hypervisor.guests[NAME] = Observed.RUNNING
    observing.seen(world.node, Observation(NAME, Observed.RUNNING))
    assert Stray.objects.get().name == NAME


def test_a_guest_that_was_terminated_after_the_look_is_no_stray(world, running, bells):
    instance = running()
    looks = world.hypervisor.observe_all()
    Instance.objects.filter(pk=instance.pk).update(state="terminated")
    del world.hypervisor.guests[instance.uid]
    observing.seen_all(world.node, looks)
    assert not Stray.objects.exists()


def test_nothing_is_concluded_of_strays_while_the_hypervisor_cannot_be_asked(world, appear):
    appear()
    looks = world.hypervisor.observe_all()
    world.hypervisor.is_mute = True
    with pytest.raises(Exception, match="does not answer"):
        observing.seen_all(world.node, looks)
    assert Stray.objects.get().name == NAME


def test_an_unknown_stray_is_refused_with_the_age_of_the_last_look(world):
    with pytest.raises(NotFound, match=rf"No stray i-nobody00 is seen on {world.node.uid}.*it never looked"):
        strays.stray_named(world.node, "i-nobody00")


def test_an_instance_of_the_node_is_no_stray(world, running):
    with pytest.raises(Conflict, match="no stray"):
        strays.stray_named(world.node, running().uid)


def test_a_stray_that_cannot_be_described_is_listed_and_hides_no_other(world, appear, monkeypatch):
    describe = world.hypervisor.describe

    def refuse(uid):
        if uid == NAME:
            raise Permanent("its disk is not there any more")
        return describe(uid)

    monkeypatch.setattr(world.hypervisor, "describe", refuse)
    appear()
    other = appear(facts=made("i-stray001"))
    assert {stray.name for stray in strays.strays_of(world.node)} == {NAME, other.name}
    refused(world, Stray.objects.get(name=NAME), Conflict, "quarantine only")


# --- adopted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "state", "wanted"),
    [
        (Observed.RUNNING, "running", "running"),
        (Observed.PAUSED, "running", "running"),
        (Observed.HALTED, "halted", "halted"),
        (Observed.CRASHED, "halted", "halted"),
    ],
)
def test_an_adopted_guest_is_an_instance_as_it_was_seen(world, appear, bells, seen, state, wanted):
    stray = appear(seen)
    operation = adopt(world, stray)
    assert stray.state == "adopting"
    bells.answer()
    operation.refresh_from_db()
    assert (operation.state, operation.account) == ("done", datacenter.account())
    instance = Instance.objects.get(uid=NAME)
    assert (instance.state, instance.wanted, instance.observed) == (state, wanted, seen.value)
    assert (instance.vcpus, instance.memory_mib, instance.slot, instance.room_held) == (2, 512, 7, True)
    volume = Volume.objects.get(uid="vol-stray000")
    assert (volume.state, volume.size_bytes, volume.attachment.instance, volume.attachment.boot) == (
        "attached",
        64 * MIB,
        instance,
        True,
    )
    assert room(world) == (2, 512, 64 * MIB)
    lease = Lease.objects.get()
    assert (lease.mac, lease.ipv4, lease.holder) == ("52:54:00:00:00:07", "10.99.0.77", instance.vifs.get().uid)
    assert strays.strays_of(world.node) == []
    look(world)
    assert Stray.objects.get().state == "adopted", "as it was settled"


def test_what_was_adopted_is_no_stray_any_more_from_that_moment(world, appear, bells):
    adopt(world, appear())
    bells.answer()
    with pytest.raises(Conflict, match=r"is an instance of .*, no stray"):
        strays.stray_named(world.node, NAME)


def test_an_adopted_guest_is_powered_off_and_terminated_like_any_other(world, appear, bells):
    adopt(world, appear())
    bells.answer()
    instance = Instance.objects.get(uid=NAME)
    services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    instance.refresh_from_db()
    assert instance.state == "halted"
    services.terminate_instance(instance, requested_by="the tests")
    bells.answer()
    instance.refresh_from_db()
    assert (instance.state, room(world), Lease.objects.exists()) == ("terminated", (0, 0, 0), False)


def test_an_address_that_is_taken_gives_way_to_a_free_one(world, appear, bells):
    Lease.objects.create(
        network=Network.objects.get(), ipv4="10.99.0.77", mac="52:54:00:99:99:99", hostname="h", holder="vif-other000"
    )
    adopt(world, appear())
    bells.answer()
    assert Lease.objects.get(mac="52:54:00:00:00:07").ipv4 == "10.99.0.2"


def test_a_slot_that_is_taken_gives_way_to_a_free_one(world, appear, running, bells):
    other = running()
    Instance.objects.filter(pk=other.pk).update(slot=7)
    adopt(world, appear())
    bells.answer()
    assert Instance.objects.get(uid=NAME).slot == 0


def refused(world, stray, error: type[Exception], match: str, **wish) -> Exception:
    """Nothing was begun, nothing was made."""
    before = room(world)
    with pytest.raises(error, match=match) as refusal:
        adopt(world, stray, **wish)
    stray.refresh_from_db()
    assert (stray.state, room(world)) == ("seen", before)
    return refusal.value


def test_a_guest_beyond_the_free_room_is_not_adopted_and_the_refusal_says_what_is_missing(world, appear):
    stray = appear(facts=made(vcpus=101))
    refused(world, stray, NoRoom, rf"{world.node.uid}.*has not 101 vCPUs left")
    assert not Instance.objects.exists()


def test_room_that_was_lost_meanwhile_fails_the_operation_and_leaves_no_row(world, appear, bells):
    stray = appear()
    operation = adopt(world, stray)
    world.node.vcpus = 1
    world.node.save()
    bells.answer()
    operation.refresh_from_db()
    stray.refresh_from_db()
    assert operation.state == "failed"
    assert "has not 2 vCPUs left" in operation.error["message"]
    assert (stray.state, room(world)) == ("seen", (0, 0, 0))
    assert not Instance.objects.exists()
    assert not Volume.objects.exists()
    assert not Lease.objects.exists()
    assert world.hypervisor.guests == {NAME: Observed.RUNNING}


def test_a_guest_that_went_meanwhile_is_not_adopted(world, appear, bells):
    operation = adopt(world, appear())
    del world.hypervisor.guests[NAME]
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert f"{NAME} is not on" in operation.error["message"]
    assert not Instance.objects.exists()


def test_a_guest_that_lost_its_disk_meanwhile_is_not_adopted(world, appear, bells):
    operation = adopt(world, appear())
    world.hypervisor.made[NAME] = made(disks=())
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert f"the disk of {NAME} is not on" in operation.error["message"]
    assert not Instance.objects.exists()


@pytest.mark.parametrize("state", ["running", "terminated"])
def test_a_guest_whose_row_is_on_another_node_or_terminated_is_not_adopted_under_its_id(world, appear, running, state):
    instance = running()
    other = datacenter.node("n2")
    Instance.objects.filter(pk=instance.pk).update(node=other, state=state)
    world.hypervisor.made[instance.uid] = made(instance.uid)
    look(world)
    stray = Stray.objects.get(name=instance.uid)
    refused(world, stray, Conflict, rf"instance on {other.uid}.*\({state}\)")


def test_a_guest_that_nothing_describes_is_not_adopted(world, appear):
    refused(world, appear(Observed.HALTED, known=False), Conflict, "quarantine only")


def test_a_guest_whose_image_nobody_knows_needs_one_named(world, appear):
    assert refused(world, appear(), Conflict, "name one of kind fake", image=None).code == "image_unknown"


def test_an_image_of_another_kind_is_refused(world, appear):
    world.image.hypervisor = "kvm"
    refused(world, appear(), Invalid, "is an image for kvm")


def test_a_card_whose_mac_is_leased_already_fails_the_adoption_with_the_reason(world, appear, bells):
    Lease.objects.create(
        network=Network.objects.get(), ipv4="10.99.0.9", mac="52:54:00:00:00:07", hostname="h", holder="vif-other000"
    )
    operation = adopt(world, appear())
    bells.answer()
    operation.refresh_from_db()
    assert "52:54:00:00:00:07 is leased" in operation.error["message"]
    assert not Instance.objects.exists()


def test_a_stray_that_is_being_adopted_is_busy_and_stays_on_the_list(world, appear):
    stray = appear()
    operation = adopt(world, stray)
    with pytest.raises(Conflict, match=operation.uid):
        strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    del world.hypervisor.guests[NAME]
    look(world)
    assert strays.strays_of(world.node) == [stray]


def test_a_guest_that_was_adopted_after_the_look_is_no_stray(world, appear, bells, monkeypatch):
    stray, describe = appear(), world.hypervisor.describe

    def adopted_meanwhile(uid):
        monkeypatch.setattr(world.hypervisor, "describe", describe)
        adopt(world, stray)
        bells.answer()
        return describe(uid)

    monkeypatch.setattr(world.hypervisor, "describe", adopted_meanwhile)
    look(world)
    assert Instance.objects.get().uid == NAME
    assert strays.strays_of(world.node) == []


def test_a_stray_that_an_operation_has_taken_after_the_look_stays(world, appear, monkeypatch):
    stray, operations = appear(), []
    del world.hypervisor.guests[NAME]
    monkeypatch.setattr(hypervisor.strays, "note", lambda *words: pytest.fail("it is not gone, an operator is at it"))
    listed = QuerySet.__iter__

    def taken_meanwhile(rows):
        found = list(listed(rows))
        if rows.model is Stray and not operations:
            operations.append("being begun")
            operations.append(adopt(world, stray))
        return iter(found)

    monkeypatch.setattr(QuerySet, "__iter__", taken_meanwhile)
    look(world)
    assert Stray.objects.get().state == "adopting"


# --- quarantine ----------------------------------------------------------------------------------------------------


def test_quarantine_removes_the_guest_and_takes_no_room(world, appear, bells):
    stray = appear()
    operation = strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "done"
    assert [step.task for step in operation.steps.all()] == ["instances.remove_stray", "instances.discard_stray_disk"]
    assert world.hypervisor.guests == {}
    assert room(world) == (0, 0, 0)
    assert strays.strays_of(world.node) == []


@pytest.mark.parametrize("state", ["running", "terminated"])
def test_the_guest_of_a_row_that_is_elsewhere_or_terminated_can_be_put_into_quarantine(
    world, appear, running, bells, state
):
    instance = running()
    Instance.objects.filter(pk=instance.pk).update(node=datacenter.node("n2"), state=state)
    look(world)
    stray = Stray.objects.get(name=instance.uid)
    strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    bells.answer()
    stray.refresh_from_db()
    assert stray.state == "quarantined"
    assert world.hypervisor.guests == {}
    instance.refresh_from_db()
    assert instance.state == state


def test_the_guest_of_an_instance_is_left_alone(world, appear, bells, running):
    stray, instance = appear(), running()
    operation = strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    Instance.objects.filter(pk=instance.pk).update(uid=NAME)
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert "left alone" in operation.error["message"]
    assert world.hypervisor.guests[NAME] == "running"


def test_a_disk_that_a_volume_owns_is_left_alone(world, appear, bells, running):
    owned = running().attachments.get().volume
    disk = DiskSpec(owned.uid, f"fake:{owned.uid}.raw", "raw", MIB, boot=True)
    stray = appear(facts=made(disks=(disk,)))
    operation = strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    bells.answer()
    assert "left alone" in operation.steps.get(task="instances.discard_stray_disk").result["said"]
    owned.refresh_from_db()
    assert owned.state == "attached"


def test_what_comes_back_after_quarantine_is_a_new_stray(world, appear, bells):
    stray = appear()
    strays.quarantine_stray(stray, account=datacenter.account(), requested_by="operator")
    bells.answer()
    again = appear()
    assert (again.state, again.uid != stray.uid) == ("seen", True)

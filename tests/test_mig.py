"""MIG slices as devices: a run takes one of them, and slices of one GPU instance share its memory."""

import pytest

from gpujobs.errors import NoSuchDevice
from gpujobs.model import Grant, Refusal, Slice, replace
from gpujobs.scheduling import asking
from gpujobs.scheduling.asking import Wish
from gpujobs.scheduling.environment import device_variables
from gpujobs.scheduling.placement import place
from gpujobs.views.refusal import sentence
from strategies import GIB, NOW, a_device, a_lease, a_process, a_request, a_snapshot, a_topology


def a_slice(number, instance=None, total=10 * GIB, card=1, **changes):
    """A slice of GPU 1; without ``instance`` it has its memory for itself."""
    slice_ = Slice(number, f"GPU-{card}", number if instance is None else instance, 0)
    known = {"uuid": f"MIG-{number}", "memory_total": total, "memory_free": total, "utilisation": None}
    return a_device(card, slice=slice_, **(known | changes))


CARD = a_device(1, mig=True)
SNAPSHOT = a_snapshot(a_device(0), CARD, a_slice(0, total=40 * GIB), a_slice(2), a_slice(3), a_device(2))


def placed(request, snapshot=SNAPSHOT, leases=()):
    """The UUIDs of a grant, or the sentence of a refusal."""
    answer = place(snapshot, leases, request, a_topology())
    return list(answer.devices) if isinstance(answer, Grant) else sentence(answer, NOW)


def only(*devices):
    return a_snapshot(*devices)


@pytest.mark.parametrize(
    ("expected", "request_"),
    [
        (["GPU-0"], a_request()),  # who does not say what is needed gets a whole card
        (["MIG-2"], a_request(gpu_memory=5 * GIB)),  # the smallest that fits
        (["MIG-0"], a_request(gpu_memory=20 * GIB)),
        (["GPU-0"], a_request(gpu_memory=50 * GIB)),
        (["GPU-0", "GPU-2"], a_request(2)),  # never a slice beside another device
        (["GPU-0", "GPU-2"], a_request(2, gpu_memory=GIB)),
        (["MIG-3"], a_request(devices=("MIG-3",))),
    ],
)
def test_where_a_request_goes(expected, request_):
    assert placed(request_) == expected


def test_two_slices_are_never_one_request():
    assert placed(a_request(2), only(CARD, a_slice(0), a_slice(1))) == (
        "2 GPUs cannot be had here: GPU 1 is in MIG mode, where a run takes one of its slices; "
        "GPUs 1:0, 1:1 cannot be combined: a program sees one MIG slice only"
    )
    named = place(SNAPSHOT, (), a_request(2, devices=("MIG-2", "MIG-3")), a_topology())
    assert isinstance(named, Refusal)
    assert named.never
    assert sentence(named, NOW) == "GPUs 1:2, 1:3 cannot be combined: a program sees one MIG slice only"


def test_a_card_in_mig_mode_is_not_given_out_whole():
    assert (
        placed(a_request(), only(CARD))
        == "1 GPU cannot be had here: GPU 1 is in MIG mode, where a run takes one of its slices"
    )


def test_a_leased_slice_leaves_the_others_free():
    held = replace(a_lease(id="held"), devices=("MIG-0",))
    assert placed(a_request(), only(CARD, a_slice(0), a_slice(2)), [held]) == ["MIG-2"]


def test_memory_is_counted_once_for_a_gpu_instance():
    """Two slices of one GPU instance: what a lease on the one has declared is not there for the other."""
    first, second = a_slice(0, instance=5), a_slice(1, instance=5)
    held = replace(a_lease(id="held"), devices=("MIG-0",), gpu_memory=6 * GIB)
    asked = a_request(gpu_memory=5 * GIB)
    assert placed(asked, only(CARD, first, second), [held]).endswith("GPU 1:1 has 4.0GiB free")
    assert placed(asked, only(CARD, first, a_slice(1, instance=6)), [held]) == ["MIG-1"]
    assert placed(a_request(gpu_memory=4 * GIB), only(CARD, first, second), [held]) == ["MIG-1"]


def test_a_run_that_declares_nothing_keeps_its_instance_from_those_who_need_to_know():
    """It may take all of the memory; who needs none in particular may come beside it."""
    held = replace(a_lease(id="held"), devices=("MIG-0",))
    machine = only(CARD, a_slice(0, instance=5), a_slice(1, instance=5))
    assert placed(a_request(gpu_memory=GIB), machine, [held]).endswith(
        "GPU 1:1 has an unknown amount of memory in use: a run on a slice that shares it does not declare any"
    )
    assert placed(a_request(), machine, [held]) == ["MIG-1"]


@pytest.mark.parametrize(("fits", "asked"), [(True, 4.0), (False, 4.5)])
def test_what_sharing_runs_promise_has_its_margin_on_a_shared_instance_too(fits, asked):
    held = replace(a_lease(id="held"), devices=("MIG-0",), gpu_memory=5 * GIB, share=True)
    request = a_request(gpu_memory=int(asked * GIB), share=True, devices=("MIG-1",))
    answer = placed(request, only(CARD, a_slice(0, instance=5), a_slice(1, instance=5)), [held])
    assert (answer == ["MIG-1"]) is fits


def test_what_a_lease_uses_of_a_shared_instance_is_not_counted_twice():
    own = a_process(7, 6 * GIB, uid=1000, lineage=(a_lease().holder,))
    first = a_slice(0, instance=5, memory_used=6 * GIB, memory_free=4 * GIB, processes=(own,))
    second = a_slice(1, instance=5, memory_used=6 * GIB, memory_free=4 * GIB, memory_beside=6 * GIB)
    held = replace(a_lease(id="held"), devices=("MIG-0",), gpu_memory=6 * GIB)
    assert placed(a_request(gpu_memory=4 * GIB), only(CARD, first, second), [held]) == ["MIG-1"]


def test_memory_that_a_neighbour_slice_explains_is_accounted_for():
    slice_ = a_slice(1, memory_used=6 * GIB, memory_free=4 * GIB, memory_beside=6 * GIB)
    assert slice_.unaccounted == 0
    assert replace(slice_, memory_beside=GIB).unaccounted == 5 * GIB
    assert replace(slice_, memory_beside=None).unaccounted is None
    assert placed(a_request(), only(CARD, replace(slice_, memory_beside=None))).startswith("waiting for 1 GPU")


# ---- what was typed -----------------------------------------------------------------------------------------------


def asked(gpu, mask=None, **changes):
    return asking.build("job", Wish(gpu=gpu, **changes), 1, SNAPSHOT, a_topology(), mask).request


@pytest.mark.parametrize("word", ["1:2", "01:02", "MIG-2", "mig-2"])
def test_a_slice_is_named_by_number_or_uuid(word):
    assert asked(word).devices == ("MIG-2",)


def test_the_card_itself_cannot_be_asked_for():
    with pytest.raises(NoSuchDevice, match=r"GPU 1 is cut into MIG slices; name one of them: 1:0 \(MIG-0\), 1:2"):
        asked("1")


def test_a_card_in_mig_mode_without_slices_says_who_makes_some():
    with pytest.raises(NoSuchDevice, match="GPU 1 is in MIG mode and has no slices; an administrator makes some"):
        asking.build("job", Wish(gpu="1"), 1, only(a_device(0), CARD), a_topology(), None)


def test_of_many_devices_a_line_names_the_numbers_only():
    with pytest.raises(NoSuchDevice, match=r"there are: 0, 1, 1:0, 1:2, 1:3, 2$"):
        asked("7")


@pytest.mark.parametrize("word", ["1:1", "0:0", "2:3"])
def test_a_hole_is_no_slice(word):
    with pytest.raises(NoSuchDevice, match="there is no such GPU"):
        asked(word)


def test_slices_do_not_count_as_cards():
    with pytest.raises(NoSuchDevice, match="this machine has 3"):
        asked("auto", gpus=4)


@pytest.mark.parametrize(
    ("visible", "mask"),
    [
        (("MIG-2",), "MIG-2"),
        (("GPU-1", "MIG-0", "MIG-2", "MIG-3"), "1"),
        (("GPU-0", "GPU-1", "MIG-0", "MIG-2", "MIG-3"), "0,1"),
    ],
)
def test_a_mask_that_shows_a_card_shows_its_slices(visible, mask):
    assert asked("auto", mask).visible == visible


# ---- what the job sees --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uuid", ["MIG-2", "GPU-2"])
def test_where_cards_are_cut_up_every_device_is_shown_by_uuid(uuid):
    """CUDA counts slices, so no index holds."""
    assert device_variables(Grant((uuid,), frozenset()), SNAPSHOT)["CUDA_VISIBLE_DEVICES"] == uuid

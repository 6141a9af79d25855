"""Statuses that the tests of the views share: a lab on a bad afternoon, and whatever Hypothesis comes up with."""

from __future__ import annotations

from hypothesis import strategies as st

from gpujobs.model import Device, GpuProcess, HostProcess, Lease, ProcessId, Request, Slice, Snapshot, Ticket, replace
from gpujobs.states import ComputeMode, DriverState, Health, Link, ProcessKind, RecoveryAction, Throttle
from gpujobs.views.status import Status, Waiting

NOW = 1_000_000.0
GIB, MIB = 2**30, 2**20
COMPUTE, GRAPHICS = frozenset({ProcessKind.COMPUTE}), frozenset({ProcessKind.GRAPHICS})


def uuid(index):
    return f"GPU-{index:08x}-0000-4000-8000-000000000000"


def device(index, **changes):
    """A card that is fine and idle, but for the changes."""
    readings = {
        "uuid": uuid(index),
        "name": "NVIDIA A100 80GB PCIe",
        "memory_total": 80 * GIB,
        "memory_used": 0,
        "memory_free": 80 * GIB,
        "memory_reserved": 600 * MIB,
        "utilisation": 0,
        "temperature": 31,
        "power": 43.4,
        "power_limit": 300.0,
        "performance_state": 0,
        "persistence": True,
        "display": False,
        "ecc_errors": 0,
        "compute_mode": ComputeMode.DEFAULT,
        "mig": False,
        "bus_id": f"00000000:{index + 1:02X}:00.0",
        "cpus": frozenset(range(8)),
        "processes": (),
    }
    return Device(index, **(readings | changes))


def host(pid, user="alice", command="python train.py --lr 1e-3", uid=1001, **changes):
    values = {"session": pid, "state": "R", "elapsed": 3723.0, "cpu_percent": 101.4, "rss": 4 * GIB} | changes
    return HostProcess(ProcessId(pid, pid * 10), uid, user, command=command, **values)


def process(pid, memory=1 * GIB, kinds=COMPUTE, **of_host):
    return GpuProcess(pid, kinds, memory, host(pid, **of_host))


def lease(name="sine_lstm", devices=(0,), pid=4000, **changes):
    values = {
        "id": f"lease-{pid}",
        "uid": 1001,
        "user": "alice",
        "since": NOW - 7500,
        "cpus": frozenset({0, 1, 40, 41}),
        "holder": ProcessId(pid, pid * 10),
        "run_number": 12,
        "ends": NOW + 1200,
    } | changes
    return Lease(name=name, devices=tuple(map(uuid, devices)), **values)


def waiting(number, request, reason=None, **changes):
    values = {"user": "bob", "uid": 1002, "since": NOW - 95} | changes
    return Waiting(
        Ticket(f"ticket-{number}", number, request=request, holder=ProcessId(7000 + number, 1), **values), reason
    )


IDLE = Status(
    Snapshot(NOW, (device(0), device(1)), driver_version="590.48.01", cuda_version="13.1"),
    now=NOW,
    host="lab1",
    host_memory=256 * GIB,
    threads=80,
)

BUSY = Status(
    Snapshot(
        NOW,
        (
            device(
                0,
                display=True,
                utilisation=97,
                memory_used=45 * GIB + 30 * MIB,
                fan=61,
                power=287.0,
                processes=(
                    process(
                        1200, 24 * MIB, GRAPHICS, user="root", uid=0, command="/usr/lib/xorg/Xorg :0 -nolisten tcp"
                    ),
                    process(4100, 44 * GIB, lineage=(ProcessId(4000, 40000),)),
                ),
            ),
            device(
                1,
                name="NVIDIA GeForce RTX 4090",
                memory_total=24564 * MIB,
                memory_used=3 * GIB,
                utilisation=6,
                processes=(
                    process(
                        51234, 2 * GIB, user="carolinamaria", uid=1003, command="evil\x1b[31m\nname", elapsed=190_000.0
                    ),
                    GpuProcess(888, COMPUTE, 512 * MIB),
                ),
            ),
            device(
                2,
                health=Health.DEGRADED,
                reason="memory: Unknown Error",
                memory_used=None,
                memory_total=None,
                memory_free=None,
                temperature=None,
                processes=None,
                errors={"memory_used": "Unknown Error", "processes": "Insufficient Permissions"},
            ),
            Device(3, health=Health.UNUSABLE, reason="GPU is lost: reset or reboot the machine"),
        ),
        links={frozenset({uuid(0), uuid(1)}): Link.SYSTEM},
        driver_version="590.48.01",
        cuda_version="13.1",
    ),
    now=NOW,
    leases=(
        lease(),
        lease("resnet", (2, 9), 4500, user="bob", uid=1002, run_number=3, cpus=frozenset(range(16)), ends=None),
        lease("notebook", (), 4600, user="carolinamaria", uid=1003, run_number=None, ends=NOW - 60, run=None),
    ),
    waiting=(
        waiting(
            7,
            Request("train.py", gpus=2, gpu_memory=20 * GIB, share=True, threads=16),
            "GPU 0 is held by alice's run 12 (sine_lstm) for about 20m, and on GPU 1 carolinamaria's process 51234 "
            "has been computing for 2d 4h.",
        ),
        waiting(9, Request("eval", gpus=1, devices=(uuid(1),), threads=1), uid=1001, user="alice", stopped=True),
    ),
    host="lab1",
    host_memory=256 * GIB,
    threads=80,
)


def lab(count, **changes):
    """A server of so many cards, every other one in use by students, of whom there are three."""
    students = [("anna", 1001), ("bob", 1002), ("carolinamaria", 1003)]
    cards = []
    for index in range(count):
        name, uid = students[index % 3]
        pid = 20000 + index
        trains = process(pid, (10 + index) * GIB, user=name, uid=uid, command=f"python train.py --fold {index}")
        used = {"memory_used": (10 + index) * GIB + 400 * MIB, "utilisation": 99 - index, "processes": (trains,)}
        cards.append(device(index, **(used if index % 2 == 0 else {})))
    return replace(IDLE, snapshot=replace(IDLE.snapshot, devices=tuple(cards)), **changes)


def part(number, gpu_instance, **changes):
    """A MIG slice of GPU 0, of ten of its eighty GiB."""
    whole_card = dict.fromkeys(("utilisation", "temperature", "power", "power_limit", "performance_state"))
    readings = {
        "uuid": f"MIG-0000000{number}-0000-5000-8000-000000000000",
        "name": "NVIDIA A100 80GB PCIe MIG 1g.10gb",
        "memory_total": 9856 * MIB,
        "slice": Slice(number, uuid(0), gpu_instance, 0),
    }
    return device(0, **(whole_card | readings | changes))


MIG = replace(
    IDLE,
    snapshot=replace(
        IDLE.snapshot,
        devices=(
            device(0, mig=True, utilisation=None, memory_used=8 * GIB, processes=None, errors={"processes": "In MIG"}),
            part(0, 3, memory_used=5 * GIB, processes=(process(31000, 5 * GIB - 20 * MIB),)),
            part(2, 9, memory_used=3 * GIB, processes=(process(31001, 2 * GIB, user="bob", uid=1002),)),
            Device(0, health=Health.UNUSABLE, reason="cannot be opened: Unknown Error", slice=Slice(3, uuid(0))),
            device(1),
        ),
    ),
    leases=(
        replace(
            lease(pid=30900, session=31000), devices=("MIG-00000000-0000-5000-8000-000000000000", uuid(1)), ends=None
        ),
    ),
)

BROKEN = replace(
    IDLE,
    snapshot=replace(
        IDLE.snapshot,
        devices=(
            Device(0, health=Health.UNUSABLE, reason="GPU is lost: reset or reboot the machine"),
            device(
                1,
                health=Health.UNUSABLE,
                reason="the driver asks for a reset of this GPU",
                recovery=RecoveryAction.RESET,
                memory_used=2 * GIB,
                processes=(process(4100, 2 * GIB),),
            ),
            device(
                2,
                health=Health.DEGRADED,
                reason="3 uncorrected ECC errors since the last reset; a broken row of its memory is replaced at the "
                "next reset",
                ecc_errors=3,
            ),
            device(
                3,
                utilisation=100,
                temperature=91,
                sm_clock=345,
                throttle=frozenset({Throttle.HARDWARE_THERMAL, Throttle.POWER_BRAKE, Throttle.POWER_CAP}),
            ),
            device(4, sm_clock=1410, throttle=frozenset({Throttle.POWER_CAP})),
        ),
    ),
)

ODD = replace(
    IDLE,
    snapshot=replace(
        IDLE.snapshot,
        devices=(
            device(
                0,
                name="NVIDIA RTX 6000 Ada Generation, Engineering Sample",
                memory_used=9 * GIB,
                processes=(
                    process(987, user="averyveryverylongusername", command="python 深層学習.py --データ 写真"),
                    replace(process(4194300, user="bob", elapsed=59.0), utilisation=63),
                    replace(process(5000, 3 * GIB, user="Ångström", command="jupyter"), idle_since=NOW - 9000),
                    replace(process(5001, 2 * GIB, command="e\u0301tude \u202ereversed"), idle_since=NOW - 4),
                ),
            ),
        ),
    ),
)

# ---- whatever a machine may show ----------------------------------------------------------------------------------


def maybe(strategy):
    return st.none() | strategy


words = st.text(st.characters(), max_size=60)  # surrogates and control characters are meant
sizes = st.integers(0, 2**48)
numbers = st.floats(0, 1e9)
seconds = st.floats(0, 1e10)
cpu_sets = st.frozensets(st.integers(0, 255), max_size=6)
uuids = st.integers(0, 20).map(uuid) | words
identities = st.builds(ProcessId, st.integers(1, 2**22), st.integers(0, 2**40))
hosts = st.builds(
    HostProcess,
    id=identities,
    uid=st.integers(0, 3),
    user=words,
    session=st.integers(0, 9),
    command=words,
    state=st.sampled_from("RSDTZ"),
    elapsed=maybe(seconds),
    cpu_seconds=maybe(seconds),
    cpu_percent=maybe(numbers),
    rss=maybe(sizes),
)
processes = st.builds(
    GpuProcess,
    pid=st.integers(1, 2**23),
    kinds=st.frozensets(st.sampled_from(ProcessKind)),
    memory=maybe(sizes),
    host=maybe(hosts),
    utilisation=maybe(st.integers(0, 200)),
    idle_since=maybe(seconds),
)
slices = st.builds(
    Slice,
    number=st.integers(0, 13),
    parent=maybe(uuids),
    gpu_instance=maybe(st.integers(0, 13)),
    compute_instance=maybe(st.integers(0, 7)),
)
leases = st.builds(
    Lease,
    id=words,
    uid=st.integers(0, 3),
    user=words,
    since=seconds,
    name=words,
    devices=st.lists(uuids, max_size=4).map(tuple),
    cpus=cpu_sets,
    holder=identities,
    run_number=maybe(st.integers(1, 10**6)),
    session=maybe(st.integers(0, 9)),
    ends=maybe(seconds),
)
requests = st.builds(
    Request,
    name=words,
    gpus=st.integers(0, 16),
    devices=st.lists(uuids, max_size=4).map(tuple),
    gpu_memory=maybe(sizes),
    share=st.booleans(),
    threads=st.integers(1, 256),
    visible=maybe(st.lists(uuids, max_size=2).map(tuple)),
    cpus=maybe(cpu_sets),
)
tickets = st.builds(
    Ticket,
    id=words,
    number=st.integers(0),
    uid=st.integers(0, 3),
    user=words,
    since=seconds,
    request=requests,
    holder=identities,
    stopped=st.booleans(),
)


@st.composite
def devices(draw, index):
    changes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "uuid": st.none(),
                "name": maybe(words),
                "health": st.sampled_from(Health),
                "reason": maybe(words),
                "memory_total": maybe(sizes),
                "memory_used": maybe(sizes),
                "memory_free": maybe(sizes),
                "utilisation": maybe(st.integers(0, 200)),
                "temperature": maybe(st.integers(0, 200)),
                "fan": maybe(st.integers(0, 200)),
                "power": maybe(numbers),
                "power_limit": maybe(numbers),
                "performance_state": maybe(st.integers(0, 15)),
                "ecc_errors": maybe(sizes),
                "recovery": maybe(st.sampled_from(RecoveryAction)),
                "throttle": maybe(st.frozensets(st.sampled_from(Throttle))),
                "sm_clock": maybe(st.integers(0, 3000)),
                "compute_mode": maybe(st.sampled_from(ComputeMode)),
                "mig": maybe(st.booleans()),
                "bus_id": maybe(words),
                "cpus": maybe(cpu_sets),
                "processes": maybe(st.lists(processes, max_size=3).map(tuple)),
                "errors": st.dictionaries(st.sampled_from(["memory_used", "processes", "name"]), words),
            },
        )
    )
    return device(index, **changes)


@st.composite
def parts(draw, index):
    """The slices of a card, with holes in their numbers."""
    cut = draw(st.lists(slices, max_size=3, unique_by=lambda part: part.number))
    changes = {"memory_beside": draw(maybe(sizes)), "memory_used": draw(maybe(sizes))}
    return [replace(draw(devices(index)), slice=part, uuid=f"MIG-{index}-{part.number}", **changes) for part in cut]


@st.composite
def snapshots(draw):
    count = draw(st.integers(0, 3))
    slots = [[draw(devices(index)), *draw(st.just([]) | parts(index))] for index in range(count)]
    return Snapshot(
        taken_at=draw(seconds),
        devices=tuple(one for slot in slots for one in slot),
        driver=draw(st.sampled_from(DriverState)),
        driver_message=draw(maybe(words)),
        driver_version=draw(maybe(words)),
        cuda_version=draw(maybe(words)),
    )


@st.composite
def statuses(draw):
    reasons = maybe(words)
    return Status(
        draw(snapshots()),
        now=draw(seconds),
        leases=tuple(draw(st.lists(leases, max_size=3))),
        waiting=tuple(Waiting(ticket, draw(reasons)) for ticket in draw(st.lists(tickets, max_size=3))),
        host=draw(maybe(words)),
        host_memory=draw(maybe(sizes)),
        threads=draw(maybe(st.integers(1, 512))),
    )

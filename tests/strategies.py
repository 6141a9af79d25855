"""Machines, leases, requests and tickets: a few made by hand, and any number made by Hypothesis."""

from hypothesis import settings
from hypothesis import strategies as st

from gpujobs.model import (
    CpuTopology,
    Device,
    GpuProcess,
    Grant,
    HostProcess,
    Lease,
    ProcessId,
    QueuePolicy,
    Request,
    Snapshot,
    Ticket,
    replace,
)
from gpujobs.replaymodel import Trace, TraceJob
from gpujobs.scheduling.placement import place
from gpujobs.states import ComputeMode, Health, Link, ProcessKind

GIB = 2**30
NOW = 1_000_000.0
UUIDS = ("GPU-0", "GPU-1", "GPU-2", "GPU-3")

# ---- by hand ------------------------------------------------------------------------------------------------------


def a_topology(cores=8, threads=2, nodes=2, **changes):
    """Cores numbered as the kernel does: core 1 of eight has the CPUs 1 and 9; the nodes are halves, quarters …"""
    every = [frozenset(range(core, cores * threads, cores)) for core in range(cores)]
    share = -(-cores // nodes) if nodes else 0
    by_node = {node: frozenset().union(*every[node * share : (node + 1) * share]) for node in range(nodes)}
    return replace(CpuTopology(tuple(every), by_node, cores * threads), **changes)


def a_device(index=0, used=0, processes=(), **changes):
    """A device of 80 GiB that everything is known of."""
    known = {"memory_total": 80 * GIB, "memory_used": used, "memory_free": 80 * GIB - used, "utilisation": 0}
    known["compute_mode"] = ComputeMode.DEFAULT
    return replace(Device(index, f"GPU-{index}", processes=tuple(processes), **known), **changes)


def a_snapshot(*devices, **changes):
    return replace(Snapshot(NOW, tuple(devices)), **changes)


def a_process(pid=4711, memory=GIB, uid=1001, kinds="C", host=True, **changes):
    """A process of bob, or of nobody that can be seen."""
    known = HostProcess(ProcessId(pid, 1), uid, "bob", pid, "python train.py", "S", elapsed=60.0) if host else None
    return GpuProcess(pid, frozenset(map(ProcessKind, kinds)), memory, known and replace(known, **changes))


def a_lease(*devices, id="lease", cpus=(), **changes):
    """A lease of anna on devices of these indices; its supervisor is process 100."""
    known = {"name": "sine_lstm", "run_number": 12, "holder": ProcessId(100, 1)}
    uuids = tuple(f"GPU-{index}" for index in devices)
    return replace(Lease(id, 1000, "anna", NOW - 7500, devices=uuids, cpus=frozenset(cpus), **known), **changes)


def a_request(gpus=1, **changes):
    return replace(Request("job", gpus=gpus), **changes)


def a_ticket(number, request, user="anna", **changes):
    ticket = Ticket(f"t{number}", number, 1000, user, NOW - 10 + number, request, ProcessId(200 + number, 1))
    return replace(ticket, **changes)


def lease_for(grant, request, id):
    """The lease that somebody writes who was given this."""
    held = a_lease(id=id, share=request.share, gpu_memory=request.gpu_memory)
    return replace(held, devices=grant.devices, cpus=grant.cpus)


# ---- by Hypothesis ------------------------------------------------------------------------------------------------

few = settings(max_examples=25)  # machines and queues take long to make up
_sizes = st.integers(0, 40).map(GIB.__mul__)
_supervisors = st.integers(100, 103).map(lambda pid: ProcessId(pid, 1))


def _seldom(strategy):
    """None, and now and then something: what is all too broken is refused for one and the same reason."""
    return st.none() | st.none() | st.none() | strategy


@st.composite
def topologies(draw):
    """Up to eight cores of one or two threads, in no, one or two NUMA nodes."""
    cores, threads = draw(st.sampled_from([8, 8, 7, 4, 1])), draw(st.sampled_from([2, 1]))
    return a_topology(cores, threads, draw(st.integers(0, 2)))


@st.composite
def processes(draw):
    """Of a lease, of a stranger or of nobody that can be seen; computing or not; of known or unknown memory."""
    lineage = draw(st.just(()) | st.tuples(_supervisors))
    kinds, memory = draw(st.sampled_from(["C", "G", "CG", "M"])), draw(_sizes | st.none())
    return a_process(draw(st.integers(1000, 9999)), memory, 1000, kinds, draw(st.booleans()), lineage=lineage)


@st.composite
def devices(draw, index):
    """Mostly idle devices; some are occupied, broken, prohibited or cannot be read."""
    running = draw(_seldom(st.lists(processes(), max_size=3))) or ()
    listed = sum(process.memory or 0 for process in running)
    device = a_device(index, listed + (draw(_seldom(_sizes)) or 0), running)
    faults = {
        "health": st.sampled_from(Health),
        "uuid": st.none(),
        "processes": st.none(),
        "memory_used": st.none(),
        "memory_total": st.sampled_from([None, 16 * GIB]),
        "memory_reserved": st.sampled_from([None, GIB]),
        "compute_mode": st.sampled_from(ComputeMode),
        "utilisation": st.integers(0, 100) | st.none(),
    }
    field = draw(_seldom(st.sampled_from(sorted(faults))))
    return replace(device, **{field: draw(faults[field])}) if field else device


@st.composite
def snapshots(draw):
    """Up to four devices, with some of the links between them."""
    pairs = st.frozensets(st.sampled_from(UUIDS), min_size=2, max_size=2)
    links = draw(st.dictionaries(pairs, st.sampled_from(Link), max_size=4))
    return a_snapshot(*(draw(devices(index)) for index in range(draw(_counts))), links=links)


@st.composite
def idle_snapshots(draw):
    """Up to four devices that nobody uses."""
    return a_snapshot(*(a_device(index) for index in range(draw(_counts))))


_counts = st.sampled_from([4, 4, 3, 2, 1, 0])


@st.composite
def leases(draw, id):
    """Anybody's lease on anything, even on what another lease holds: what is read may be nonsense."""
    indices = draw(st.lists(st.integers(0, 3), max_size=2, unique=True))
    share, memory = draw(st.booleans()), draw(_sizes | st.none())
    cpus, since = draw(st.frozensets(st.integers(0, 15), max_size=2)), NOW - draw(st.integers(0, 5))
    return a_lease(*indices, id=id, cpus=cpus, share=share, gpu_memory=memory, since=since, holder=draw(_supervisors))


def lease_sets():
    return st.integers(0, 3).flatmap(lambda count: st.tuples(*(leases(f"l{place}") for place in range(count))))


@st.composite
def requests(draw):
    """For any, for chosen and for no devices; alone and sharing; with and without a mask and an affinity."""
    chosen = tuple(draw(_seldom(st.lists(st.sampled_from(UUIDS), min_size=1, max_size=3, unique=True))) or ())
    gpus = len(chosen) or draw(st.sampled_from([1, 1, 2, 3, 0]))
    share = gpus > 0 and draw(st.booleans())
    return Request(
        "job",
        gpus,
        devices=chosen,
        gpu_memory=draw(_sizes if share else _seldom(_sizes)) if gpus else None,
        share=share,
        threads=draw(st.sampled_from([1, 2, 2, 3, 8])),
        visible=draw(_seldom(st.lists(st.sampled_from(UUIDS), min_size=1, unique=True).map(tuple))),
        cpus=draw(_seldom(st.frozensets(st.integers(0, 15), min_size=4))),
    )


@st.composite
def tickets(draw, number):
    """Of two people; now and then one is suspended."""
    user = draw(st.sampled_from(["anna", "bob"]))
    return a_ticket(number, draw(requests()), user, stopped=draw(_seldom(st.booleans())) or False)


def queues(most=5):
    return st.integers(0, most).flatmap(lambda count: st.tuples(*(tickets(number) for number in range(count))))


# ---- turns --------------------------------------------------------------------------------------------------------

_people = st.sampled_from([(1000, "anna"), (1001, "bob"), (1002, "carl")])
_lengths = st.sampled_from([1.0, 60.0, 600.0, 600.0, 3600.0, 86400.0, 1e6])


@st.composite
def _turns(draw, number, restarts):
    """A ticket of one of three people who may have said how long it takes, and whether it can restart."""
    uid, user = draw(_people)
    lengths = {"expect": draw(st.none() | _lengths), "time_limit": draw(_seldom(_lengths))}
    cost = draw(st.sampled_from([None, 10.0, 300.0, 5000.0])) if restarts else None
    request = replace(draw(requests()), nice=draw(st.sampled_from([0, 0, 0, 5, -5])), restart_cost=cost, **lengths)
    return a_ticket(
        number,
        request,
        user,
        uid=uid,
        since=NOW - draw(st.sampled_from([0.0, 10.0, 600.0, 1e4, 1e5, 3e6])),
        stopped=draw(_seldom(st.booleans())) or False,
        expected=draw(st.none() | _lengths),
        attained=draw(st.sampled_from([0.0, 0.0, 600.0, 1e5])) if cost is not None else 0.0,
    )


def turns(most=6, restarts=True):
    """A queue of all that the policy tells apart."""
    several = st.integers(0, most).flatmap(
        lambda count: st.tuples(*(_turns(number, restarts) for number in range(count)))
    )
    return several.flatmap(lambda made: st.permutations(made).map(tuple))


@st.composite
def holdings(draw, snapshot, topology, restarts=True):
    """Leases that are possible at the same time: each was placed beside those before it."""
    held = []
    for number in range(draw(st.integers(0, 4))):
        request = draw(requests())
        grant = place(snapshot, held, request, topology)
        if isinstance(grant, Grant):
            uid, user = draw(_people)
            changes = {
                "since": NOW - draw(st.sampled_from([0.0, 30.0, 600.0, 1e5])),
                "ends": draw(st.none() | _lengths.map(NOW.__add__) | st.just(NOW - 60)),
                "restart_cost": draw(st.sampled_from([None, 10.0, 300.0, 5000.0])) if restarts else None,
                "attained": draw(st.sampled_from([0.0, 1e5])),
                "yielding": restarts and draw(_seldom(st.booleans())) is True,
                "holder": ProcessId(300 + number, 1),
            }
            held.append(replace(lease_for(grant, request, f"l{number}"), uid=uid, user=user, **changes))
    return tuple(held)


@st.composite
def benches(draw, restarts=True):
    """A machine with all that is held on it: a snapshot, a topology, leases."""
    snapshot, topology = draw(snapshots()), draw(topologies())
    return snapshot, topology, draw(holdings(snapshot, topology, restarts))


def queue_policies():
    """What a site may set, each field to what makes a difference here."""
    return st.builds(
        QueuePolicy,
        half_life=st.sampled_from([3600.0, 86400.0]),
        cap=st.sampled_from([None, 0.25, 0.5]),
        patience=st.sampled_from([0.0, 5000.0, 30 * 86400.0]),
        unknown=st.sampled_from([600.0, 3600.0]),
        user_limit=st.sampled_from([None, None, 1, 2]),
        lane=st.sampled_from([0, 0, 1, 2]),
        lane_time=st.sampled_from([600.0, 1800.0]),
        yield_after=st.sampled_from([100.0, 18000.0]),
        yield_cost=st.sampled_from([0.0, 600.0, 600.0]),
    )


def usages():
    """What people have had, in GPU-seconds."""
    return st.dictionaries(st.sampled_from([1000, 1001, 1002]), st.sampled_from([1.0, 1e3, 1e5, 1e7]))


@st.composite
def traces(draw, gpus, most=12):
    """A few jobs for so many devices, whose users say exactly how long they take."""
    jobs, submit = [], 0.0
    for number in range(draw(st.integers(1, most))):
        submit += draw(st.sampled_from([0.0, 0.0, 1.0, 30.0, 700.0]))
        runtime = float(draw(st.sampled_from([1, 5, 60, 90, 600, 601, 5000, 20000])))
        user, width = draw(st.sampled_from("abc")), draw(st.integers(1, gpus))
        threads = draw(st.integers(1, 2 * width))
        jobs.append(TraceJob(number, f"j{number}", user, submit, runtime, width, runtime, threads))
    return Trace("made up", jobs)

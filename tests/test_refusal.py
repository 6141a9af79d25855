"""Refusals as people read them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.model import Hindrance, Obstacle, Refusal
from gpujobs.views.refusal import sentence
from strategies import GIB, NOW

ANNA = {"user": "anna", "what": "sine_lstm", "since": NOW - 7500}
LEASE = Obstacle(Hindrance.LEASE, 0, run_number=12, **ANNA)
STRANGER = Obstacle(Hindrance.STRANGER, 1, "bob", "python train.py", 12 * GIB, NOW - 11400, 4711)


def said(*obstacles, wanted="1 GPU", never=False):
    return sentence(Refusal(obstacles, wanted, never), NOW)


def lease(device=0, **changes):
    return Obstacle(Hindrance.LEASE, device, **(ANNA | changes))


def queue(what, user=None, device=None):
    return Obstacle(Hindrance.QUEUE, device, user, what)


def kept(gpus=1, **more):
    return Obstacle(Hindrance.QUEUE, 1, "bob", "train.py", gpus=gpus, **more)


@pytest.mark.parametrize(
    ("expected", "obstacle"),
    [
        ("GPU 0 is leased by anna (run 12, sine_lstm) for 2h 5m", LEASE),
        ("GPU 0 is leased by anna (sine_lstm) for 2h 5m, about 40m left", lease(ends=NOW + 2400)),
        ("GPU 0 is leased by anna (sine_lstm) for 2h 5m, overdue by 5m", lease(ends=NOW - 300)),
        ("GPU 0 is leased by anna (sine_lstm) for 0.0s", lease(since=NOW + 60)),  # a step of the clock
        ("GPU 0 is leased by ?", Obstacle(Hindrance.LEASE, 0)),
        ("GPU 1 has a process of bob: pid 4711 python train.py, 12.0GiB, for 3h 10m", STRANGER),
        ("GPU 1 has a process of bob: pid 7", Obstacle(Hindrance.STRANGER, 1, "bob", pid=7)),
        ("GPU 1 has a process that cannot be seen from here: pid 7", Obstacle(Hindrance.UNSEEN, 1, pid=7)),
        (
            "GPU 1 has a process that cannot be seen from here: pid 7, 1.0GiB",
            Obstacle(Hindrance.UNSEEN, 1, pid=7, memory=GIB),
        ),
        ("GPU 1 has 1.0GiB in use that no visible process explains", Obstacle(Hindrance.UNACCOUNTED, 1, memory=GIB)),
        ("GPU 1 has 1.0GiB free", Obstacle(Hindrance.MEMORY, 1, what="free", memory=GIB)),
        ("GPU 1 has 1.0GiB left beside anna (sine_lstm)", Obstacle(Hindrance.MEMORY, 1, memory=GIB, **ANNA)),
        (
            "GPU 1 has an unknown amount of memory in use: not supported",
            Obstacle(Hindrance.UNKNOWN_MEMORY, 1, what="not supported"),
        ),
        ("GPU 1 cannot be used: GPU is lost", Obstacle(Hindrance.UNUSABLE, 1, what="GPU is lost")),
        ("not every GPU can be seen: timeout", Obstacle(Hindrance.UNUSABLE, what="timeout")),
        ("GPU 1 is hidden by CUDA_VISIBLE_DEVICES", Obstacle(Hindrance.MASKED, 1, what="CUDA_VISIBLE_DEVICES")),
        ("GPU 1 is kept for bob train.py", queue("train.py", "bob", 1)),
        ("GPU 1 is kept for an earlier run", queue(None, device=1)),
        ("GPU 1 is kept for bob train.py", kept()),
        ("GPU 1 is kept for bob train.py (4 GPUs)", kept(gpus=4)),
        ("GPU 1 is 80 % busy with anna (sine_lstm)", Obstacle(Hindrance.BUSY, 1, percent=80, **ANNA)),
        ("anna holds 1 GPU and others wait: they go first", Obstacle(Hindrance.CAP, user="anna", gpus=1)),
        ("anna holds 4 GPUs and others wait: they go first", Obstacle(Hindrance.CAP, user="anna", gpus=4)),
        ("nobody may hold more than 2 GPUs here at a time", Obstacle(Hindrance.LIMIT, user="anna", gpus=2)),
        ("nobody may hold more than 1 GPU here at a time", Obstacle(Hindrance.LIMIT, user="anna", gpus=1)),
        ("1 GPU is left to short runs", Obstacle(Hindrance.LANE, user="anna", gpus=1)),
        ("2 GPUs are left to short runs", Obstacle(Hindrance.LANE, user="anna", gpus=2)),
        (
            "1 GPU is kept free for people who work by hand (the site's 'keep_free')",
            Obstacle(Hindrance.KEPT_FREE, gpus=1),
        ),
        (
            "2 GPUs are kept free for people who work by hand (the site's 'keep_free')",
            Obstacle(Hindrance.KEPT_FREE, gpus=2),
        ),
        (
            "GPU 1 is left out by the site's setting",
            Obstacle(Hindrance.EXCLUDED, 1, what="left out by the site's setting"),
        ),
        ("anna (sine_lstm) holds cores for 2h 5m", Obstacle(Hindrance.CORES, **ANNA)),
    ],
)
def test_waiting_for(expected, obstacle):
    """Every kind of obstacle: who, what, how much, since when."""
    assert said(obstacle) == f"waiting for 1 GPU: {expected}"


def test_several_obstacles():
    """In the order of the devices, but those that are no good come last."""
    hidden = Obstacle(Hindrance.MASKED, 0, what="CUDA_VISIBLE_DEVICES")
    assert said(hidden, lease(1), STRANGER, wanted="2 GPUs") == (
        "waiting for 2 GPUs: GPU 1 is leased by anna (sine_lstm) for 2h 5m; GPU 1 has a process of bob: pid 4711"
        " python train.py, 12.0GiB, for 3h 10m; GPU 0 is hidden by CUDA_VISIBLE_DEVICES"
    )


def test_the_same_on_several_devices_is_said_once():
    """With the verb that goes with many."""
    everybody = [lease(0), lease(1), *(Obstacle(Hindrance.MEMORY, n, what="free", memory=GIB) for n in (2, 3))]
    assert said(*everybody) == (
        "waiting for 1 GPU: GPUs 0, 1 are leased by anna (sine_lstm) for 2h 5m; GPUs 2, 3 have 1.0GiB free"
    )


@pytest.mark.parametrize(("expected", "count"), [("GPU 3 is leased by u3", 4), ("and 2 more", 5), ("and 13 more", 16)])
def test_not_more_than_can_be_read(expected, count):
    """The first few, and how many more there are."""
    text = said(*(Obstacle(Hindrance.LEASE, n, f"u{n}") for n in range(count)))
    assert text.split("; ")[3:] == [expected]


@pytest.mark.parametrize(
    ("expected", "obstacles"),
    [
        ("behind 1 run: anna sine_lstm", [queue("sine_lstm", "anna")]),
        ("behind 2 runs: anna sine_lstm, bob train.py", [queue("sine_lstm", "anna"), queue("train.py", "bob")]),
        ("behind 999 runs: anna a, bob b, …", [queue("999 runs"), queue("a", "anna"), queue("b", "bob")]),
        ("its waiter is suspended and cannot take its turn", [Obstacle(Hindrance.STOPPED, **ANNA)]),
    ],
)
def test_in_the_queue(expected, obstacles):
    """What is wanted goes without saying where only others are in the way."""
    assert said(*obstacles) == expected


def test_kept_beside_other_obstacles():
    """The device is named, and how many it is kept for if they are many."""
    kept = [queue("9 runs", device=0), queue("a", "anna", 0), queue("b", "bob", 0)]
    assert said(*kept, Obstacle(Hindrance.LEASE, 1, "u1")) == (
        "waiting for 1 GPU: GPU 1 is leased by u1; GPU 0 is kept for 9 runs: anna a, bob b, …"
    )


@pytest.mark.parametrize(
    ("expected", "wanted", "obstacles"),
    [
        ("GPU 3 cannot be used: GPU is lost", "GPU 3", [Obstacle(Hindrance.UNUSABLE, 3, what="GPU is lost")]),
        (
            "3 GPUs were asked for, this machine has 2",
            "3 GPUs",
            [Obstacle(Hindrance.MISSING, what="this machine has 2")],
        ),
        (
            "GPU GPU-9 was asked for, this machine has no GPU-9",
            "GPU GPU-9",
            [Obstacle(Hindrance.MISSING, what="this machine has no GPU-9")],
        ),
        (
            "1 GPU was asked for, this machine has none",
            "1 GPU",
            [Obstacle(Hindrance.MISSING, what="this machine has none")],
        ),
        (
            "9 threads were asked for, 8 may be used here",
            "9 threads",
            [Obstacle(Hindrance.CORES, what="8 may be used here")],
        ),
        (
            "no GPU here has 90.0GiB: the largest has 80.0GiB",
            "1 GPU with 90.0GiB",
            [Obstacle(Hindrance.MEMORY, n, what="in all", memory=(40 + 40 * n) * GIB) for n in range(2)],
        ),
        (
            "GPU 1 with 90.0GiB cannot be had here: GPU 1 has 80.0GiB in all",
            "GPU 1 with 90.0GiB",
            [Obstacle(Hindrance.MEMORY, 1, what="in all", memory=80 * GIB)],
        ),
        (
            "2 GPUs cannot be had here: GPU 1 is hidden by CUDA_VISIBLE_DEVICES; GPU 0 cannot be used: GPU is lost",
            "2 GPUs",
            [
                Obstacle(Hindrance.MASKED, 1, what="CUDA_VISIBLE_DEVICES"),
                Obstacle(Hindrance.UNUSABLE, 0, what="GPU is lost"),
            ],
        ),
        (
            "GPU 3 is left out",
            "GPU 3 with 8.0GiB",
            [Obstacle(Hindrance.EXCLUDED, 3, what="left out")],
        ),
        (
            "2 GPUs cannot be had here: GPUs 1, 2 are left out",
            "2 GPUs",
            [Obstacle(Hindrance.EXCLUDED, n, what="left out") for n in (1, 2)],
        ),
        (
            "4 GPUs cannot be had here: 1 GPU is kept free for people who work by hand (the site's 'keep_free')",
            "4 GPUs",
            [Obstacle(Hindrance.KEPT_FREE, gpus=1)],
        ),
        ("say how much memory", "1 GPU", [Obstacle(Hindrance.MEMORY, what="say how much memory")]),
    ],
)
def test_never(expected, wanted, obstacles):
    """What was asked for and what there is, without a word of waiting."""
    assert said(*obstacles, wanted=wanted, never=True) == expected


def test_nothing_is_known():
    """A refusal without obstacles still says what is waited for."""
    assert said(wanted="4 threads") == "waiting for 4 threads"


def test_long_commands_are_cut():
    """A command line may be as long as the kernel allows."""
    command = "python " + 200 * "x"
    assert f"pid 1 {command[:59]}…" in said(Obstacle(Hindrance.STRANGER, 0, "bob", command, pid=1))


def test_foreign_words_do_not_reach_the_terminal():
    """A command may hold colours, line ends and what turns the line around."""
    text = said(Obstacle(Hindrance.STRANGER, 0, "b\x1bob", "a\x1b[31m\n\tb\u202ec\udcffd\x00", pid=1))
    assert text == "waiting for 1 GPU: GPU 0 has a process of b?ob: pid 1 a?[31m b?c?d?"


obstacles = st.builds(
    Obstacle,
    kind=st.sampled_from(Hindrance),
    device=st.none() | st.integers(0, 15),
    user=st.none() | st.text(),
    what=st.none() | st.text(),
    memory=st.none() | st.integers(0, 2**40),
    since=st.none() | st.floats(0, 2 * NOW),
    ends=st.none() | st.floats(0, 2 * NOW),
)


@given(st.builds(Refusal, st.lists(obstacles, min_size=1, max_size=20).map(tuple), st.text(), st.booleans()))
def test_always_one_printable_line(refusal):
    """Whatever is in it, of a length that can be read."""
    text = sentence(refusal, NOW)
    assert text.isprintable()
    assert len(text) <= len(refusal.wanted) + 1500


# ---- turns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "later"), [("%H:%M", 60), ("%a %d %b, %H:%M", 200_000)])
def test_about_when_a_device_is_taken(shape, later):
    """The time of day, with the date if it is not today's."""
    when = time.strftime(shape, time.localtime(NOW + later))
    assert said(kept(2, starts=NOW + later)) == (
        f"waiting for 1 GPU: GPU 1 is kept for bob train.py (2 GPUs) from about {when}"
    )


@pytest.mark.parametrize("far", [1e10, 1e17, 1e300, float("inf")])
def test_a_time_beyond_all_calendars_is_not_said(far):
    """Estimates are what people write down."""
    assert said(kept(2, starts=far)) == "waiting for 1 GPU: GPU 1 is kept for bob train.py (2 GPUs)"


@pytest.mark.parametrize(
    ("expected", "less"),
    [
        ("behind 2 runs: bob train.py, carl big.py", (False, False)),
        ("behind 2 runs: bob train.py, carl big.py", (True, False)),
        ("behind 2 runs of users who have had less: bob train.py, carl big.py", (True, True)),
    ],
)
def test_behind_whom(expected, less):
    """Whether those ahead have had less is said where it is true of all of them."""
    ahead = (queue("train.py", "bob"), queue("big.py", "carl"))
    assert said(*(one._replace(less=is_so) for one, is_so in zip(ahead, less, strict=True))) == expected


def test_behind_many_runs_of_one_user_who_has_had_less():
    """Their number leads."""
    ahead = (queue("12 runs"), queue("a", "bob"), queue("b", "bob"))
    expected = "behind 12 runs of a user who has had less: bob a, bob b, …"
    assert said(*(one._replace(less=True) for one in ahead)) == expected


def test_what_is_in_the_way_and_who_is_ahead():
    """First what would have to change, then those who get it before."""
    assert said(lease(), queue("train.py", "bob")) == (
        "waiting for 1 GPU: GPU 0 is leased by anna (sine_lstm) for 2h 5m; behind 1 run: bob train.py"
    )

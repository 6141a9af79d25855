"""Claims as text: everything comes back, and what an earlier version left out is what it was then."""

import json

import pytest

from claims import a_lease, a_ticket
from gpujobs.machine import claimtext
from gpujobs.model import Request

REQUEST = Request(
    name="train",
    gpus=2,
    devices=("GPU-a", "GPU-b"),
    gpu_memory=2**30,
    share=True,
    threads=4,
    visible=("GPU-a", "GPU-b", "GPU-c"),
    cpus=frozenset({0, 1, 4}),
    time_limit=3600.0,
    expect=1800.0,
    nice=5,
    restart_cost=120.0,
    utilisation=40,
)
TICKET = a_ticket(7, request=REQUEST, expected=900.0, attained=7200.0)
LEASE = a_lease(
    share=True,
    gpu_memory=2**30,
    run="key",
    run_number=12,
    session=4711,
    ends=2000.0,
    restart_cost=120.0,
    utilisation=40,
    attained=7200.0,
    yielding=True,
)
NEW = {"expected", "attained", "nice", "restart_cost", "utilisation", "yielding"}


def back(text, claim):
    return claimtext.decode(text, claim.id, claim.uid, claim.user)


@pytest.mark.parametrize("claim", [TICKET, LEASE, a_ticket(), a_lease()], ids=["ticket", "lease", "bare", "bare lease"])
def test_everything_comes_back(claim):
    """Every field, set or not."""
    assert back(claimtext.encode(claim), claim) == claim


@pytest.mark.parametrize("claim", [a_ticket(), a_lease()], ids=["ticket", "lease"])
def test_a_claim_from_before_there_were_turns(claim):
    """Nobody is told to end their runs because gpujobs is upgraded."""
    body = {key: value for key, value in json.loads(claimtext.encode(claim)).items() if key not in NEW | {"check"}}
    if "request" in body:
        body["request"] = {key: value for key, value in body["request"].items() if key not in NEW}
    body["check"] = claimtext.check(body)
    assert back(json.dumps(body).encode(), claim) == claim


@pytest.mark.parametrize("changes", [{"nice": -1}, {"restart_cost": -1.0}, {"utilisation": "much"}, {"nice": 1.5}])
def test_what_no_request_can_have(changes):
    """A claim that says so is none."""
    body = json.loads(claimtext.encode(TICKET))
    body["request"] |= changes
    del body["check"]
    body["check"] = claimtext.check(body)
    with pytest.raises(claimtext.BadClaim):
        back(json.dumps(body).encode(), TICKET)

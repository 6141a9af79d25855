"""Claims as text, both ways. Pure; the file around it is :mod:`gpujobs.machine.board`'s.

A claim is one line of JSON, padded with blanks to a fixed size so that it can be written again in place, under the
lock it already has. A reader that meets the two halves of a change finds the check sum wrong and reads again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpujobs.model import Lease, ProcessId, Request, Ticket
from gpujobs.units import format_cpu_list, parse_cpu_list

VERSION = 1
SLOT = 2048  # a claim is padded to a multiple of this, with room to grow
_ROOM = 256


class BadClaim(ValueError):
    """The text is not a claim."""


def encode(claim: Ticket | Lease) -> bytes:
    """The text of a claim. Who owns it is not in it: that is the owner of the file."""
    import json  # an empty board is read without it

    body = _ticket_body(claim) if isinstance(claim, Ticket) else _lease_body(claim)
    body["check"] = check(body)
    text = json.dumps(body, separators=(",", ":")).encode()
    size = -(-(len(text) + _ROOM) // SLOT) * SLOT
    return text.ljust(size - 1) + b"\n"


def decode(text: bytes, id: str, uid: int, user: str) -> Ticket | Lease:
    """The claim in a text; raises :class:`BadClaim` on anything that this version did not write."""
    try:
        body = _load(text)
        if not isinstance(body, dict) or body.pop("check", None) != check(body):
            raise BadClaim("its check sum is wrong")
        if body["version"] != VERSION:
            raise BadClaim(f"it was written by another version ({body['version']!r})")
        read = _read_ticket if body["kind"] == "ticket" else _read_lease
        return read(body, id, uid, user)
    except BadClaim:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        raise BadClaim("what is in it is not a claim") from None


def _load(text: bytes) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadClaim("what is in it is not a claim") from None


def check(body: Mapping[str, Any]) -> int:
    """The check sum of a claim's fields."""
    import json
    import zlib

    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _ticket_body(ticket: Ticket) -> dict[str, Any]:
    request = ticket.request
    return {
        "kind": "ticket",
        "version": VERSION,
        "number": ticket.number,
        "since": ticket.since,
        "holder": list(ticket.holder),
        "expected": ticket.expected,
        "attained": ticket.attained,
        "run": ticket.run,
        "run_number": ticket.run_number,
        "request": {
            "name": request.name,
            "gpus": request.gpus,
            "devices": list(request.devices),
            "gpu_memory": request.gpu_memory,
            "share": request.share,
            "threads": request.threads,
            "visible": None if request.visible is None else list(request.visible),
            "cpus": None if request.cpus is None else format_cpu_list(request.cpus),
            "time_limit": request.time_limit,
            "expect": request.expect,
            "nice": request.nice,
            "restart_cost": request.restart_cost,
            "utilisation": request.utilisation,
        },
    }


def _lease_body(lease: Lease) -> dict[str, Any]:
    return {
        "kind": "lease",
        "version": VERSION,
        "since": lease.since,
        "name": lease.name,
        "devices": list(lease.devices),
        "cpus": format_cpu_list(lease.cpus),
        "holder": list(lease.holder),
        "share": lease.share,
        "gpu_memory": lease.gpu_memory,
        "run": lease.run,
        "run_number": lease.run_number,
        "session": lease.session,
        "ends": lease.ends,
        "restart_cost": lease.restart_cost,
        "utilisation": lease.utilisation,
        "attained": lease.attained,
        "yielding": lease.yielding,
        "taker": None if lease.taker is None else list(lease.taker),
    }


def _read_ticket(body: Mapping[str, Any], id: str, uid: int, user: str) -> Ticket:
    return Ticket(
        id=id,
        number=_whole(body["number"]),
        uid=uid,
        user=user,
        since=_number(body["since"]),
        request=_read_request(body["request"]),
        holder=_process(body["holder"]),
        expected=_optional(_number, body.get("expected")),
        attained=_number(body.get("attained", 0)),
        run=_optional(_text, body.get("run")),
        run_number=_optional(_whole, body.get("run_number")),
    )


def _read_request(body: Mapping[str, Any]) -> Request:
    return Request(
        name=_text(body["name"]),
        gpus=_whole(body["gpus"]),
        devices=_texts(body["devices"]),
        gpu_memory=_optional(_whole, body["gpu_memory"]),
        share=bool(body["share"]),
        threads=_whole(body["threads"]),
        visible=_optional(_texts, body["visible"]),
        cpus=_optional(_cpus, body["cpus"]),
        time_limit=_optional(_number, body["time_limit"]),
        expect=_optional(_number, body["expect"]),
        nice=_whole(body.get("nice", 0)),
        restart_cost=_optional(_number, body.get("restart_cost")),
        utilisation=_optional(_whole, body.get("utilisation")),
    )


def _read_lease(body: Mapping[str, Any], id: str, uid: int, user: str) -> Lease:
    return Lease(
        id=id,
        uid=uid,
        user=user,
        since=_number(body["since"]),
        name=_text(body["name"]),
        devices=_texts(body["devices"]),
        cpus=_cpus(body["cpus"]),
        holder=_process(body["holder"]),
        share=bool(body["share"]),
        gpu_memory=_optional(_whole, body["gpu_memory"]),
        run=_optional(_text, body["run"]),
        run_number=_optional(_whole, body["run_number"]),
        session=_optional(_whole, body["session"]),
        ends=_optional(_number, body["ends"]),
        restart_cost=_optional(_number, body.get("restart_cost")),
        utilisation=_optional(_whole, body.get("utilisation")),
        attained=_number(body.get("attained", 0)),
        yielding=bool(body.get("yielding", False)),
        taker=_optional(_process, body.get("taker")),
    )


def _optional(read: Any, value: Any) -> Any:
    return None if value is None else read(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise BadClaim(f"{value!r} is not a whole number"[:60])
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
        raise BadClaim(f"{value!r} is not a time"[:60])
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise BadClaim("a name is not a short text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 1024:
        raise BadClaim("a list of devices is not a short list")
    return tuple(_text(item) for item in value)


def _cpus(value: Any) -> frozenset[int]:
    text = _text_of_cpus(value)
    if any(len(part) > 11 for part in text.split(",")):
        raise BadClaim("a list of CPUs is out of range")
    ends = [int(end) for part in text.split(",") if part for end in part.split("-")]
    if any(end >= 65536 for end in ends):  # before the list is expanded: a hostile one could fill the memory
        raise BadClaim("a list of CPUs is out of range")
    return parse_cpu_list(text)


def _text_of_cpus(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 16384:
        raise BadClaim("a list of CPUs is not a text")
    return value


def _process(value: Any) -> ProcessId:
    pid, start = value
    return ProcessId(_whole(pid), _whole(start))

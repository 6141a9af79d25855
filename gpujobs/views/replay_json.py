"""What became of a trace under several policies, for programs: base units, null for unknown. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gpujobs.views.replay import Report, Result, offered_load, span, users

VERSION = 1


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain data, policies in the order of the report; ``left_out`` are sentences."""
    trace = report.trace
    return {
        "version": VERSION,
        "trace": {
            "name": trace.name,
            "jobs": len(trace.jobs),
            "users": users(trace),
            "span_s": span(trace),
            "offered_load": offered_load(trace, report.gpus),
            "left_out": list(trace.left_out),
        },
        "gpus": report.gpus,
        "settings": dict(report.settings),
        "policies": [_policy(result) for result in report.results],
    }


def policies_dict(policies: Mapping[str, str], default: Collection[str]) -> dict[str, Any]:
    """What there is to replay: names with descriptions, in the order given."""
    known = [{"name": name, "description": text, "default": name in default} for name, text in policies.items()]
    return {"version": VERSION, "policies": known}


def _policy(result: Result) -> dict[str, Any]:
    metrics = result.metrics._asdict() | {"wait_by_class": dict(result.metrics.wait_by_class)}
    return {
        "policy": result.policy,
        "metrics": metrics,
        "replay": {"seconds": result.seconds, "decisions": result.decisions},
    }

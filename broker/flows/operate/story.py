"""The story of a binding: what happened to it, when, by whom and why. Pure: from rows to sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker.flows.operate.desk import Shown

Row = Mapping[str, Any]


def story(
    binding: Row, lines: Sequence[Row], calls: Sequence[Row], rests: Sequence[Row], audited: Sequence[Row]
) -> list[Shown]:
    """Return every event in the order of its time; ``text`` is for people, the other members for programs."""
    numbers = {line["id"]: line["x"] for line in lines}
    events = [
        _event(binding["created_at"], "asked", f"{binding['caller']} asked for a binding of {_life(binding['ttl_s'])}")
    ]
    for line in lines:
        events += _line(binding, line, [call for call in calls if call["line_id"] == line["id"]])
    if binding["ended_at"] is not None:
        reason = binding["reason"] or "no reason noted"
        events.append(
            _event(binding["ended_at"], binding["state"], f"the binding is {binding['state']}: {reason}", reason=reason)
        )
    events += _rests(rests, lines[-1] if lines else None, numbers)
    events += [
        _event(
            row["at"], row["what"], _AUDITED[row["what"]].format(who=row["who"], reason=row["reason"]), who=row["who"]
        )
        for row in audited
    ]
    return sorted(events, key=lambda event: event["at"])


_AUDITED = {
    "reveal": "{who} looked at the real numbers",
    "release": "{who} released it by hand",
    "retry_call": "{who} had a dead call tried again",
    "discard_call": "{who} gave up a dead call: {reason}",
}


def _line(binding: Row, line: Row, calls: Sequence[Row]) -> Iterable[Shown]:
    if calls and line["current"]:
        why = binding["chosen"] or "no reason noted"
        # A line that was there before is joined when the binding is asked for.
        at = max(calls[0]["created_at"], binding["created_at"])
        yield _event(at, "chosen", f"X {line['x']} of pool {binding['pool']}: {why}", x=line["x"], why=why)
    elif calls:
        yield _event(calls[0]["created_at"], "chosen", f"X {line['x']} tried first, then given up", x=line["x"])
    for call in calls:
        yield from _call(call)
    if line["confirmed_at"] is not None:
        yield _event(
            line["confirmed_at"], "active",
            f"the platform has confirmed; {_until(binding['expires_at'])}",
            subscription_id=line["subscription_id"],
        )  # fmt: skip


def _call(call: Row) -> Iterable[Shown]:
    changes = f": {', '.join(call['wanted'])}" if call["wanted"] else ""
    name = f"platform call {call['no']} ({call['op']}{changes})"
    same = {"no": call["no"], "op": call["op"]}
    yield _event(call["created_at"], f"{call['op']}_begun", f"{name} written down, to be sent", **same)
    tries = {"attempt": call["attempt"], "token": call["token"], "http": call["http"], "code": call["code"]}
    owners = f", owner {call['token']}" if call["token"] > 1 else ""
    answer = f", HTTP {call['http']}" if call["http"] is not None else ""
    answer += f", code {call['code']}" if call["code"] else ""
    if call["state"] == "dead":
        yield _event(
            call["dead_at"] or call["created_at"], f"{call['op']}_dead",
            f"{name} is dead after attempt {call['attempt']}{owners}{answer}: an operator must have it tried again or"
            " give it up",
            **same, **tries,
        )  # fmt: skip
        return
    if call["settled_at"] is None:
        yield _event(
            call["claimable_at"], f"{call['op']}_open",
            f"{name} still open after attempt {call['attempt']}{owners}{answer}; now any instance may take it over",
            **same, **tries,
        )  # fmt: skip
        return
    yield _event(
        call["settled_at"], f"{call['op']}_settled",
        f"{name} settled: {call['outcome']}, attempt {call['attempt']}{owners}{answer}",
        outcome=call["outcome"], **same, **tries,
    )  # fmt: skip


def _rests(rests: Sequence[Row], line: Row | None, numbers: Mapping[Any, str]) -> Iterable[Shown]:
    for rest in rests:
        party = "A" if line is not None and rest["party_key"] == line["a_key"] else "B"
        x = numbers[rest["line_id"]]
        yield _event(rest["until"], "rested", f"{party} has rested from X {x}", party=party.lower(), x=x)


def _event(at: Any, event: str, text: str, **more: Any) -> Shown:
    return {"at": at, "event": event, "text": text, **more}


def _life(ttl_s: int) -> str:
    return f"{ttl_s} s" if ttl_s else "no fixed life"


def _until(expires_at: Any) -> str:
    return "no expiry" if expires_at is None else f"expires {expires_at:%Y-%m-%dT%H:%M:%SZ}"

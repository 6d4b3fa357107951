"""How a modify's row says what is wanted of the line."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from broker.domain.change import Callee, LineChange
from broker.domain.ids import new_id
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.crypto import Vault


def wanted_text(
    vault: Vault, pool_id: int, line_id: UUID, change: LineChange, *, a: PhoneNumber, b: PhoneNumber | None
) -> str:
    """Return ``change`` as the call's row keeps it, with the line's parties as they are.

    These are sealed for a row of their own, to which bindings that have ended go when the parties change.
    """
    before = new_id()
    was = {"line": str(before), "a": _coded(vault.seal("line", "a", pool_id, before, a.reveal()))}
    if b is not None:
        was["b"] = _coded(vault.seal("line", "b", pool_id, before, b.reveal()))
    wanted: dict[str, Any] = {"before": was}
    for role, party in (("a", change.a), ("b", change.b)):
        if party is not None:
            sealed = vault.seal("line", role, pool_id, line_id, party.reveal())
            wanted[role] = {"key": vault.party_key(party.reveal()), "sealed": _coded(sealed)}
    if change.direction is not None:
        wanted["direction"] = change.direction
    if change.options is not None:
        wanted["options"] = change.options.to_text()
    if change.ttl_s is not None:
        wanted["ttl_s"] = change.ttl_s
    if change.callback is not None or change.no_callback:
        number = change.callback.reveal() if change.callback is not None else None
        sealed_number = vault.seal("line", "callback", pool_id, line_id, number) if number is not None else None
        wanted["callback"] = {"sealed": _coded(sealed_number) if sealed_number is not None else None}
    if (callee := change.callee) is not None:
        wanted["callee"] = {
            "sealed": _coded(vault.seal("line", "callee", pool_id, line_id, callee.number.reveal())),
            "ttl_s": callee.ttl_s,
            "user_data": callee.user_data,
        }
    return orjson.dumps(wanted).decode()


def read_wanted(vault: Vault, pool_id: int, line_id: UUID, text: str) -> LineChange:
    """Return the change that :func:`wanted_text` wrote.

    Raises:
        SealBroken: the data keys do not open it.
    """
    wanted: Mapping[str, Any] = orjson.loads(text)

    def party(role: str) -> PhoneNumber | None:
        if role not in wanted:
            return None
        sealed = wanted[role]["sealed"]
        return PhoneNumber(vault.open("line", role, pool_id, line_id, base64.b64decode(sealed))) if sealed else None

    callee = party("callee")
    return LineChange(
        a=party("a"),
        b=party("b"),
        direction=wanted.get("direction"),
        options=CallOptions.from_text(wanted["options"]) if "options" in wanted else None,
        ttl_s=wanted.get("ttl_s"),
        callback=party("callback"),
        no_callback="callback" in wanted and wanted["callback"]["sealed"] is None,
        anew="anew" in wanted,
        callee=Callee(callee, wanted["callee"]["ttl_s"], wanted["callee"]["user_data"]) if callee is not None else None,
    )


def _coded(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()

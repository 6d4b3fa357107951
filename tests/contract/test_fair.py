"""Fair shares over real processes: who asks for a hundred times its share does not hold up the others."""

from __future__ import annotations

from tests.contract.service import Client, Service, add_app, add_key, eventually, phone, rows, settled_config

#: What one caller asks for, and what each of the others does.
_MUCH, _LITTLE = 400, 4
_OTHERS = ("one", "two", "three", "four")
_APP = "fair"


async def _app(service: Service, client: Client) -> dict[str, str]:
    """An app with 10 calls a second and five callers; their keys."""
    numbers = [phone(), phone()]
    tenant = await add_app(service, _APP, pools=[("here", "0755", numbers)], callers=())
    await rows(service, "UPDATE app SET rate = 10, burst = 2 WHERE id = $1", tenant.app_id)
    app = f"apps/key-of-{_APP}"
    await client.emulator("PUT", app, {"secret": "secret", "mode": "axb", "rate": 0, "burst": None})
    await client.emulator("PUT", f"{app}/numbers", [{"number": number, "area_code": "0755"} for number in numbers])
    keys = {caller: await add_key(service, tenant.app_id, caller, ("bind", "read")) for caller in ("greedy", *_OTHERS)}
    await settled_config(service, client, keys[_OTHERS[-1]])
    return keys


async def _order(client: Client, key: str, many: int, callers: dict[str, str], caller: str) -> None:
    """Have so many bindings accepted at once, and note whose they are by their A."""
    items = [{"a": phone(), "b": phone()} for _ in range(many)]
    callers |= {item["a"]: caller for item in items}
    answer = await client.ask(
        "POST", "/v1/bindings:batch", {"items": items}, key=key,
        headers={"Prefer": "respond-async", "Request-Timeout": "30"},
    )  # fmt: skip
    assert {item["status"] for item in answer.body["items"]} == {202}, answer.raw


async def _sent(client: Client, callers: dict[str, str], after: int = 0) -> list[str]:
    """Whose binds the platform got, in that order."""
    return [callers[row["a"]] for row in await client.ledger(after) if row["op"] == "bind" and row["a"] in callers]


async def test_a_greedy_caller_does_not_hold_up_the_others(service: Service, client: Client) -> None:
    """Behind hundreds of calls of one caller, those of the others are served in turn, not after them."""
    keys = await _app(service, client)
    callers: dict[str, str] = {}
    await _order(client, keys["greedy"], _MUCH, callers, "greedy")
    for caller in _OTHERS:
        await _order(client, keys[caller], _LITTLE, callers, caller)
    accepted = (await client.emulator("GET", "health"))["ledger"]
    try:

        async def served() -> list[str] | None:
            order = await _sent(client, callers)
            return order if sum(order.count(caller) for caller in _OTHERS) == _LITTLE * len(_OTHERS) else None

        order = await eventually(served, "the others' calls are served", limit_s=120)
        after = await _sent(client, callers, accepted)
    finally:
        await rows(service, "UPDATE app SET rate = NULL WHERE name = $1", _APP)
    before = order[: len(order) - len(after)].count("greedy")
    last = max((place for place, caller in enumerate(after) if caller != "greedy"), default=-1)
    # By turns of five callers it is as many as each of the others has; of two processes each may have some of them.
    waited_for = after[: last + 1].count("greedy")
    assert waited_for <= 4 * _LITTLE * len(_OTHERS)
    assert waited_for < (_MUCH - before) / 2

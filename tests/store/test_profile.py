from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from broker.api.auth import new_key
from broker.errors import Conflict, Invalid, NotFound
from broker.flows.operate import apps, callers, rotation
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import AppChange, CallerChange, NewApp, NewCaller, NewKey, Staged, read
from broker.store.registry import App, load
from tests.store.shop import Shop
from tests.store.test_operate import _VAULT, desk_of, furnished, pointers

_NEW = {"name": "food", "app_key": "k", "secret": "s3cret", "base_url": "https://platform.example.com"}
_PROFILE: dict[str, Any] = {
    "max_ttl_s": 31_536_000, "default_ttl_s": 31_536_000, "heat": 30, "recording": False, "sms": False,
    "extension_digits": 2, "event_url": "https://edge.example.com/n/food/event", "cdr_url": "http://edge.example.com",
    "sms_url": "https://edge.example.com/n/food/sms", "channel": "direct", "industry": "food delivery",
    "call_script": "Hello, your meal is here.\nGoodbye.", "complaint_budget": 3, "complaint_days": 7,
    "answer_floor": 0.4, "over_budget": "freeze",
}  # fmt: skip


async def registered(desk: Desk) -> App:
    """The app `food` as instances know it."""
    await desk.db.fetch(
        "UPDATE app SET secret_sealed = $1 WHERE name = 'shop'", _VAULT.seal("app", "secret", 0, "shop", "x")
    )
    return next(app for app in (await load(desk.db, _VAULT)).apps.values() if app.name == "food")


async def test_the_whole_profile_is_stored_and_changed_field_by_field(shop: Shop) -> None:
    """Every field comes back as it was given; one change leaves the others; null takes away what may be absent."""
    desk = desk_of(shop)
    made = await apps.create(desk, read(NewApp, {**_NEW, **_PROFILE}))
    assert {name: made[name] for name in _PROFILE} == _PROFILE
    assert await apps.change(desk, "food", read(AppChange, {"cap": 7})) == {**made, "cap": 7}
    absent = dict.fromkeys(("rate", "heat", "event_url", "cdr_url", "sms_url", "channel", "industry", "call_script",
                            "complaint_budget", "answer_floor"))  # fmt: skip
    assert await apps.change(desk, "food", read(AppChange, absent)) == {**made, "cap": 7, **absent}
    app = await registered(desk)
    assert (app.max_ttl_s, app.recording, app.sms) == (31_536_000, False, False)
    plain = await apps.create(desk, read(NewApp, {**_NEW, "name": "plain", "app_key": "p"}))
    assert (plain["max_ttl_s"], plain["recording"], plain["sms"], plain["heat"]) == (31_536_000, True, True, None)


async def test_bad_fields_of_a_profile_are_named_together() -> None:
    """Ranges, addresses and notes out of bounds: each with its place; null where a value is needed, too."""
    bad: dict[str, Any] = {
        "max_ttl_s": 31_536_001, "default_ttl_s": 31_536_001, "heat": 0, "recording": "yes", "sms": None,
        "extension_digits": 5, "event_url": "ftp://h", "cdr_url": "https://h?q=1", "sms_url": "h", "channel": "",
        "industry": "x" * 65, "call_script": "bell\x07", "complaint_budget": -1, "complaint_days": 0,
        "answer_floor": 0.0, "over_budget": "retire",
    }  # fmt: skip
    with pytest.raises(Invalid) as caught:
        read(AppChange, bad)
    assert pointers(caught.value) == {f"/{name}" for name in bad}


async def test_the_default_lifetime_is_never_over_the_maximum(shop: Shop) -> None:
    """At creation and by either change: refused by the place of the default, and nothing is changed."""
    desk = desk_of(shop)
    with pytest.raises(Invalid) as caught:
        await apps.create(desk, read(NewApp, {**_NEW, "max_ttl_s": 3600}))
    assert pointers(caught.value) == {"/default_ttl_s"}
    made = await apps.create(desk, read(NewApp, {**_NEW, "max_ttl_s": 7200, "default_ttl_s": 7200}))
    for change in ({"max_ttl_s": 7199, "cap": 9}, {"default_ttl_s": 7201}):
        with pytest.raises(Invalid):
            await apps.change(desk, "food", read(AppChange, change))
    assert await apps.show(desk, "food") == made
    assert (await apps.change(desk, "food", read(AppChange, {"default_ttl_s": 0})))["default_ttl_s"] == 0


async def test_a_secret_is_rotated_without_a_gap(shop: Shop) -> None:
    """Staged, promoted, dropped: calls use the current secret, pushes may be signed with two; none is ever shown."""
    desk = desk_of(shop)
    await apps.create(desk, read(NewApp, _NEW))
    for step in (rotation.promote, rotation.drop):
        with pytest.raises(Conflict):
            await step(desk, "food")
        with pytest.raises(NotFound):
            await step(desk, "none")
    assert (await rotation.stage(desk, "food", "typo"))["second_secret"] == "staged"
    staged = await rotation.stage(desk, "food", "n3w")
    assert not {"typo", "n3w", "s3cret"} & set(map(str, staged.values()))
    app = await registered(desk)
    assert (app.secret, app.accepted_secrets) == ("s3cret", ("s3cret", "n3w"))
    assert "n3w" not in repr(app)
    assert (await rotation.promote(desk, "food"))["second_secret"] == "previous"
    app = await registered(desk)
    assert (app.secret, app.accepted_secrets) == ("n3w", ("n3w", "s3cret"))
    with pytest.raises(Conflict, match="drop it first"):
        await rotation.stage(desk, "food", "third")
    assert (await rotation.drop(desk, "food"))["second_secret"] is None
    app = await registered(desk)
    assert (app.secret, app.accepted_secrets) == ("n3w", ("n3w",))
    await rotation.stage(desk, "food", "never")
    await rotation.drop(desk, "food")
    assert (await registered(desk)).accepted_secrets == ("n3w",)
    with pytest.raises(Invalid):
        read(Staged, {"secret": "two words"})


async def test_two_rotations_at_once_leave_at_most_two_secrets(shop: Shop) -> None:
    """The table itself refuses a third secret."""
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.run("UPDATE app SET next_secret_sealed = 'a', previous_secret_sealed = 'b'")


async def test_limits_of_a_caller_are_kept(shop: Shop) -> None:
    """Limits are stored at creation, changed one by one, taken away by null, and checked."""
    desk = await furnished(shop)
    made = await callers.create(desk, "food", read(NewCaller, {"name": "limited", "requests_per_s": 2.5}))
    assert (made["weight"], made["requests_per_s"], made["max_live_bindings"]) == (1, 2.5, None)
    changed = await callers.change(desk, "food", "limited", read(CallerChange, {"max_live_bindings": 10}))
    assert changed == {**made, "max_live_bindings": 10}
    free = await callers.change(desk, "food", "limited", read(CallerChange, {"requests_per_s": None, "weight": 3}))
    assert free == {**changed, "requests_per_s": None, "weight": 3}
    with pytest.raises(Invalid) as caught:
        read(CallerChange, {"weight": None, "requests_per_s": 0, "max_live_bindings": 0})
    assert pointers(caught.value) == {"/weight", "/requests_per_s", "/max_live_bindings"}


async def test_a_key_is_rotated_to_one_with_the_same_scopes(shop: Shop) -> None:
    """Rotating makes the second key; it needs exactly one live key before; the old one works until it is revoked."""
    desk = await furnished(shop)
    with pytest.raises(Conflict, match="no live key"):
        await callers.rotate_key(desk, "food", "shop", new_key())
    old, new = new_key(), new_key()
    first = await callers.create_key(desk, "food", "shop", read(NewKey, {"scopes": ["read", "operate"]}), old)
    second = await callers.rotate_key(desk, "food", "shop", new)
    assert (second["scopes"], second["replaces"]) == (["operate", "read"], first["hint"])
    assert second["key"] == new
    with pytest.raises(Conflict, match="revoke one"):
        await callers.rotate_key(desk, "food", "shop", new_key())
    await registered(desk)
    registry = await load(shop.db, _VAULT)
    found, made = registry.key(old), registry.key(new)
    assert found is not None
    assert made is not None
    assert replace(found, hint="") == replace(made, hint="")
    await callers.revoke_key(desk, "food", "shop", second["replaces"])
    registry = await load(shop.db, _VAULT)
    assert registry.key(new) is not None or first["hint"] == second["hint"]

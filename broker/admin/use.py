"""From a request to a use case: what the path and the body say, checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from broker.api.auth import new_key
from broker.flows.operate import (
    apps,
    audit,
    callers,
    calls,
    clearing,
    complaints,
    cooldown,
    evacuation,
    numbers,
    pools,
    retention,
    rotation,
    shadow,
    tones,
    webhooks,
)
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import (
    AppChange,
    CallerChange,
    CallFilter,
    Clear,
    Closing,
    Complaint,
    Cooldown,
    Discard,
    DriftPolicy,
    Evacuated,
    Given,
    Move,
    NewApp,
    NewCaller,
    NewKey,
    NewPool,
    NewTone,
    NumberFilter,
    Numbers,
    PoolChange,
    Question,
    Rejection,
    Retry,
    Staged,
    ToneFilter,
    Why,
    read,
)
from broker.flows.operate.webhooks import DeliveryFilter, NewWebhook, Replay, Rotation
from broker.platform.huawei.access import of_app


class Import(Given):
    """Lines to import; each is checked by itself, so that every mistake is found."""

    items: Annotated[list[Any], Field(min_length=1, max_length=100_000)]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: names in its path, its JSON body ({} when empty) or the file that it is, its query, who sent it."""

    path: Mapping[str, str]
    body: object
    query: Mapping[str, str]
    file: bytes = b""
    who: str = ""


Use = Callable[[Desk, Asked], Awaitable[object]]
#: How long a test of a webhook is waited for.
_TEST_S = 10.0
_FLAGS = {"true": True, "false": False}


async def show_retention(desk: Desk, _asked: Asked) -> object:
    """What is kept for how long, and how far deleting is."""
    return await retention.show(desk)


async def list_apps(desk: Desk, _asked: Asked) -> object:
    """All apps."""
    return await apps.every(desk)


async def create_app(desk: Desk, asked: Asked) -> object:
    """A new app."""
    return await apps.create(desk, read(NewApp, asked.body))


async def show_app(desk: Desk, asked: Asked) -> object:
    """One app."""
    return await apps.show(desk, asked.path["app"])


async def change_app(desk: Desk, asked: Asked) -> object:
    """Merge-patch of an app."""
    return await apps.change(desk, asked.path["app"], read(AppChange, asked.body))


async def suspend_app(desk: Desk, asked: Asked) -> object:
    """No new bindings."""
    return await apps.suspend(desk, asked.path["app"], read(Why, asked.body).reason)


async def resume_app(desk: Desk, asked: Asked) -> object:
    """New bindings again."""
    return await apps.resume(desk, asked.path["app"])


async def check_app(desk: Desk, asked: Asked) -> object:
    """One question to the platform, with the current or the staged secret."""
    return await apps.check(desk, asked.path["app"], of_app, staged=read(Question, asked.body).staged)


async def show_audit(desk: Desk, asked: Asked) -> object:
    """What audits found."""
    return await audit.report(desk, asked.path["app"], everything=asked.query.get("all") == "true")


async def run_audit(desk: Desk, asked: Asked) -> object:
    """An audit, by whichever instance takes it; who asks again learns how far it is."""
    return await audit.begin(desk, asked.path["app"])


async def change_audit(desk: Desk, asked: Asked) -> object:
    """Merge-patch of what is made of differences."""
    return await audit.set_policy(desk, asked.path["app"], read(DriftPolicy, asked.body))


async def show_shadow(desk: Desk, asked: Asked) -> object:
    """How predictions compare with what another system binds."""
    return await shadow.report(desk, asked.path["app"])


async def enter_shadow(desk: Desk, asked: Asked) -> object:
    """Into shadow: suspended first; ask again until it is done."""
    return await shadow.switch(desk, asked.path["app"], shadow=True)


async def leave_shadow(desk: Desk, asked: Asked) -> object:
    """Out of shadow: suspended first; ask again until it is done, import, resume."""
    return await shadow.switch(desk, asked.path["app"], shadow=False)


async def stage_secret(desk: Desk, asked: Asked) -> object:
    """A second secret, to be proved."""
    return await rotation.stage(desk, asked.path["app"], read(Staged, asked.body).secret)


async def promote_secret(desk: Desk, asked: Asked) -> object:
    """The second secret becomes the first."""
    return await rotation.promote(desk, asked.path["app"])


async def drop_secret(desk: Desk, asked: Asked) -> object:
    """No second secret any more."""
    return await rotation.drop(desk, asked.path["app"])


async def list_callers(desk: Desk, asked: Asked) -> object:
    """An app's callers."""
    return await callers.every(desk, asked.path["app"])


async def create_caller(desk: Desk, asked: Asked) -> object:
    """A new caller."""
    return await callers.create(desk, asked.path["app"], read(NewCaller, asked.body))


async def change_caller(desk: Desk, asked: Asked) -> object:
    """Merge-patch of a caller."""
    return await callers.change(desk, asked.path["app"], asked.path["caller"], read(CallerChange, asked.body))


async def list_keys(desk: Desk, asked: Asked) -> object:
    """A caller's keys by their hints."""
    return await callers.keys(desk, asked.path["app"], asked.path["caller"])


async def create_key(desk: Desk, asked: Asked) -> object:
    """A new key, shown this once."""
    new = read(NewKey, asked.body)
    return await callers.create_key(desk, asked.path["app"], asked.path["caller"], new, new_key())


async def rotate_key(desk: Desk, asked: Asked) -> object:
    """A key beside the only one, with its scopes."""
    return await callers.rotate_key(desk, asked.path["app"], asked.path["caller"], new_key())


async def revoke_key(desk: Desk, asked: Asked) -> object:
    """A key that is taken no more."""
    return await callers.revoke_key(desk, asked.path["app"], asked.path["caller"], asked.path["hint"])


async def list_pools(desk: Desk, asked: Asked) -> object:
    """An app's pools."""
    return await pools.every(desk, asked.path["app"])


async def create_pool(desk: Desk, asked: Asked) -> object:
    """A new pool."""
    return await pools.create(desk, asked.path["app"], read(NewPool, asked.body))


async def change_pool(desk: Desk, asked: Asked) -> object:
    """A pool with other settings."""
    return await pools.change(desk, asked.path["app"], asked.path["pool"], read(PoolChange, asked.body))


async def show_cooldown(desk: Desk, asked: Asked) -> object:
    """The quarantine that late calls speak for, at ``?risk=`` calls for a million orders."""
    return await cooldown.show(desk, asked.path["app"], asked.path["pool"], read(Cooldown, dict(asked.query)))


async def close_pool(desk: Desk, asked: Asked) -> object:
    """A pool that is handed out from no more."""
    return await pools.close(desk, asked.path["app"], asked.path["pool"])


async def open_pool(desk: Desk, asked: Asked) -> object:
    """A pool that is handed out from again."""
    return await pools.reopen(desk, asked.path["app"], asked.path["pool"])


async def list_numbers(desk: Desk, asked: Asked) -> object:
    """An app's numbers."""
    return await numbers.every(desk, asked.path["app"], read(NumberFilter, dict(asked.query)))


async def import_numbers(desk: Desk, asked: Asked) -> object:
    """All lines or none."""
    return await numbers.load(desk, asked.path["app"], read(Import, asked.body).items)


async def freeze_numbers(desk: Desk, asked: Asked) -> object:
    """Handed out no more; lines live on."""
    return await numbers.freeze(desk, asked.path["app"], read(Closing, asked.body))


async def open_numbers(desk: Desk, asked: Asked) -> object:
    """Handed out again."""
    return await numbers.reopen(desk, asked.path["app"], read(Numbers, asked.body))


async def drain_numbers(desk: Desk, asked: Asked) -> object:
    """On their way out."""
    return await numbers.drain(desk, asked.path["app"], read(Closing, asked.body))


async def retire_numbers(desk: Desk, asked: Asked) -> object:
    """Given back."""
    return await numbers.retire(desk, asked.path["app"], read(Numbers, asked.body))


async def move_number(desk: Desk, asked: Asked) -> object:
    """In another pool."""
    return await numbers.move(desk, asked.path["app"], read(Move, asked.body))


async def show_evacuations(desk: Desk, asked: Asked) -> object:
    """How far the bindings of numbers have moved: all that move, or the newest of ``?number=``."""
    wanted = read(Evacuated, dict(asked.query))
    return await evacuation.progress(desk, asked.path["app"], wanted.number)


async def clear_number(desk: Desk, asked: Asked) -> object:
    """Every binding on it is being released; who asks again learns how far they are."""
    number = read(Clear, asked.body).number
    return await clearing.clear(desk, asked.path["app"], number, wait_s=0.0, told=lambda _over, _of: None)


async def report_complaint(desk: Desk, asked: Asked) -> object:
    """One complaint more; the number as it stands after it."""
    return await complaints.report(desk, asked.path["app"], read(Complaint, asked.body))


async def list_calls(desk: Desk, asked: Asked) -> object:
    """Calls that keep failing."""
    return await calls.every(desk, asked.path["app"], read(CallFilter, dict(asked.query)))


async def explain_call(desk: Desk, asked: Asked) -> object:
    """What was tried, what it blocks, what a retry or a discard would do."""
    return await calls.explain(desk, asked.path["app"], asked.path["call"])


async def retry_calls(desk: Desk, asked: Asked) -> object:
    """Tried again by running instances."""
    return await calls.retry(desk, asked.path["app"], read(Retry, asked.body).calls, who=asked.who)


async def discard_calls(desk: Desk, asked: Asked) -> object:
    """Given up without knowing what the platform holds."""
    return await calls.discard(desk, asked.path["app"], read(Discard, asked.body), who=asked.who)


async def list_tones(desk: Desk, asked: Asked) -> object:
    """An app's tones."""
    return await tones.every(desk, asked.path["app"], read(ToneFilter, dict(asked.query)))


async def show_tone(desk: Desk, asked: Asked) -> object:
    """One tone."""
    return await tones.show(desk, asked.path["app"], asked.path["tone"])


async def add_tone(desk: Desk, asked: Asked) -> object:
    """A draft from the file that the body is; ``?convert=true``: from another kind of wav."""
    given: dict[str, object] = {**asked.query, "name": asked.path["tone"]}
    if "convert" in given:
        given["convert"] = _FLAGS.get(str(given["convert"]), given["convert"])
    return await tones.add(desk, asked.path["app"], read(NewTone, given), asked.file)


async def remove_tone(desk: Desk, asked: Asked) -> object:
    """A tone that binds can name no more."""
    return await tones.remove(desk, asked.path["app"], asked.path["tone"])


async def export_tone(desk: Desk, asked: Asked) -> object:
    """The file."""
    return await tones.export(desk, asked.path["app"], asked.path["tone"])


async def submit_tone(desk: Desk, asked: Asked) -> object:
    """Uploaded in the platform's console."""
    return await tones.submit(desk, asked.path["app"], asked.path["tone"])


async def approve_tone(desk: Desk, asked: Asked) -> object:
    """Approved by the platform."""
    return await tones.approve(desk, asked.path["app"], asked.path["tone"])


async def reject_tone(desk: Desk, asked: Asked) -> object:
    """Rejected by the platform."""
    return await tones.reject(desk, asked.path["app"], asked.path["tone"], read(Rejection, asked.body).reason)


async def list_webhooks(desk: Desk, asked: Asked) -> object:
    """An app's webhooks."""
    return await webhooks.every(desk, asked.path["app"])


async def show_webhook(desk: Desk, asked: Asked) -> object:
    """One webhook."""
    return await webhooks.show(desk, asked.path["app"], asked.path["webhook"])


async def add_webhook(desk: Desk, asked: Asked) -> object:
    """A webhook; the answer alone shows its secret."""
    return await webhooks.add(desk, asked.path["app"], read(NewWebhook, asked.body))


async def remove_webhook(desk: Desk, asked: Asked) -> object:
    """A webhook that gets nothing more."""
    return await webhooks.remove(desk, asked.path["app"], asked.path["webhook"])


async def test_webhook(desk: Desk, asked: Asked) -> object:
    """An event of type webhook.test, and what came of it."""
    return await webhooks.test(desk, asked.path["app"], asked.path["webhook"], wait_s=_TEST_S)


async def rotate_webhook(desk: Desk, asked: Asked) -> object:
    """A new secret; the old one signs too for a while."""
    return await webhooks.rotate(desk, asked.path["app"], asked.path["webhook"], read(Rotation, asked.body))


async def enable_webhook(desk: Desk, asked: Asked) -> object:
    """Events again, also those of meanwhile."""
    return await webhooks.enable(desk, asked.path["app"], asked.path["webhook"])


async def disable_webhook(desk: Desk, asked: Asked) -> object:
    """No events."""
    return await webhooks.disable(desk, asked.path["app"], asked.path["webhook"])


async def list_deliveries(desk: Desk, asked: Asked) -> object:
    """What waits or was given up."""
    query: dict[str, object] = dict(asked.query)
    if str(query.get("limit", "")).isdecimal():
        query["limit"] = int(str(query["limit"])[:6])
    return await webhooks.deliveries(desk, asked.path["app"], asked.path["webhook"], read(DeliveryFilter, query))


async def replay_webhook(desk: Desk, asked: Asked) -> object:
    """Events that are sent again."""
    return await webhooks.replay(desk, asked.path["app"], asked.path["webhook"], read(Replay, asked.body))


async def revive_webhook(desk: Desk, asked: Asked) -> object:
    """Dead letters that are sent again."""
    return await webhooks.revive(desk, asked.path["app"], asked.path["webhook"])

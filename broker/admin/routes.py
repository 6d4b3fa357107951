"""The table of routes for operators, and nothing else. All need a key with the scope `operate`: it opens every app."""

from __future__ import annotations

from dataclasses import dataclass

from broker.admin import use
from broker.admin.use import Use
from broker.domain.tone import MOST_SOURCE_BYTES


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. ``creates``: answered 201; ``named``: what is made has an address, the path and its name.

    ``file``: the body is no JSON but a file of at most so many bytes.
    """

    method: str
    path: str
    use: Use
    creates: bool = False
    named: bool = False
    file: int | None = None


_APPS = "/v1/operator/apps"
_APP = _APPS + "/{app:[^/:]+}"
_CALLER = _APP + "/callers/{caller:[^/:]+}"
_POOL = _APP + "/pools/{pool:[^/:]+}"
_WEBHOOK = _APP + "/webhooks/{webhook:[^/:]+}"
_TONE = _APP + "/tones/{tone:[^/:]+}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/operator/retention", use.show_retention),
    Route("GET", _APPS, use.list_apps),
    Route("POST", _APPS, use.create_app, creates=True, named=True),
    Route("GET", _APP, use.show_app),
    Route("PATCH", _APP, use.change_app),
    Route("POST", _APP + ":suspend", use.suspend_app),
    Route("POST", _APP + ":resume", use.resume_app),
    Route("POST", _APP + ":check", use.check_app),
    Route("GET", _APP + "/audit", use.show_audit),
    Route("PATCH", _APP + "/audit", use.change_audit),
    Route("POST", _APP + "/audit:run", use.run_audit),
    Route("GET", _APP + "/shadow", use.show_shadow),
    Route("POST", _APP + ":shadow", use.enter_shadow),
    Route("POST", _APP + ":cutover", use.leave_shadow),
    Route("POST", _APP + "/secret:stage", use.stage_secret),
    Route("POST", _APP + "/secret:promote", use.promote_secret),
    Route("POST", _APP + "/secret:drop", use.drop_secret),
    Route("GET", _APP + "/callers", use.list_callers),
    Route("POST", _APP + "/callers", use.create_caller, creates=True),
    Route("PATCH", _CALLER, use.change_caller),
    Route("GET", _CALLER + "/keys", use.list_keys),
    Route("POST", _CALLER + "/keys", use.create_key, creates=True),
    Route("POST", _CALLER + "/keys:rotate", use.rotate_key, creates=True),
    Route("DELETE", _CALLER + "/keys/{hint}", use.revoke_key),
    Route("GET", _APP + "/pools", use.list_pools),
    Route("POST", _APP + "/pools", use.create_pool, creates=True),
    Route("PATCH", _POOL, use.change_pool),
    Route("GET", _POOL + "/cooldown", use.show_cooldown),
    Route("POST", _POOL + ":close", use.close_pool),
    Route("POST", _POOL + ":open", use.open_pool),
    Route("GET", _APP + "/numbers", use.list_numbers),
    Route("POST", _APP + "/numbers:import", use.import_numbers),
    Route("POST", _APP + "/numbers:freeze", use.freeze_numbers),
    Route("POST", _APP + "/numbers:open", use.open_numbers),
    Route("POST", _APP + "/numbers:drain", use.drain_numbers),
    Route("POST", _APP + "/numbers:retire", use.retire_numbers),
    Route("POST", _APP + "/numbers:move", use.move_number),
    Route("POST", _APP + "/numbers:clear", use.clear_number),
    Route("POST", _APP + "/numbers:complain", use.report_complaint),
    Route("GET", _APP + "/calls", use.list_calls),
    Route("GET", _APP + "/calls/{call:[^/:]+}", use.explain_call),
    Route("POST", _APP + "/calls:retry", use.retry_calls),
    Route("POST", _APP + "/calls:discard", use.discard_calls),
    Route("GET", _APP + "/evacuations", use.show_evacuations),
    Route("GET", _APP + "/tones", use.list_tones),
    Route("GET", _TONE, use.show_tone),
    Route("PUT", _TONE, use.add_tone, file=MOST_SOURCE_BYTES),
    Route("DELETE", _TONE, use.remove_tone),
    Route("GET", _TONE + "/content", use.export_tone),
    Route("POST", _TONE + ":submit", use.submit_tone),
    Route("POST", _TONE + ":approve", use.approve_tone),
    Route("POST", _TONE + ":reject", use.reject_tone),
    Route("GET", _APP + "/webhooks", use.list_webhooks),
    Route("POST", _APP + "/webhooks", use.add_webhook, creates=True, named=True),
    Route("GET", _WEBHOOK, use.show_webhook),
    Route("DELETE", _WEBHOOK, use.remove_webhook),
    Route("POST", _WEBHOOK + ":test", use.test_webhook),
    Route("POST", _WEBHOOK + ":rotate", use.rotate_webhook),
    Route("POST", _WEBHOOK + ":enable", use.enable_webhook),
    Route("POST", _WEBHOOK + ":disable", use.disable_webhook),
    Route("GET", _WEBHOOK + "/deliveries", use.list_deliveries),
    Route("POST", _WEBHOOK + "/deliveries:replay", use.replay_webhook),
    Route("POST", _WEBHOOK + "/deliveries:revive", use.revive_webhook),
)

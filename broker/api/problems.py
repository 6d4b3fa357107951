"""The page that ``type`` of a problem points to."""

from __future__ import annotations

from html import escape

from aiohttp import web

from broker import errors

#: Codes that are used beside the defaults of the classes, each with what to do about it.
CODES: dict[str, str] = {
    "malformed_json": "The body is not JSON. Mend the request.",
    "unauthorized": "No API key, or one that is not known. Send Authorization: Bearer bbk_...",
    "forbidden": "The key lacks the scope for this operation. Ask an operator.",
    "not_found": "There is nothing at this path.",
    "binding_not_found": "No such binding in your app.",
    "peer_not_found": "The binding has no such peer.",
    "pool_not_found": "No such pool in your app.",
    "number_not_found": "No such X number in your app.",
    "method_not_allowed": "See the Allow header.",
    "pool_exhausted": "No X of the allowed pools may be given to this pair now; reasons counts why. "
    "Try other areas, or later.",
    "idempotency_in_progress": "The first request with this Idempotency-Key is still being carried out. "
    "Repeat it after Retry-After.",
    "idempotency_key_reused": "This Idempotency-Key belongs to another request. Use a fresh one.",
    "request_timeout": "The body did not arrive in time. Nothing was done; send the request again.",
    "body_too_large": "The body is over the limit.",
    "compressed_body": "Send the body without Content-Encoding.",
    "validation_failed": "errors names every bad field by its JSON Pointer, with a code if it has one of its own.",
    "field_unknown_to_mode": "The app's mode does not know the field; errors names the modes that do. Leave it out.",
    "not_offered_by_platform": "The platform cannot do this in the app's mode. Leave it out, or use another mode.",
    "routing_mismatch": "Pools of routing pair take a and b, pools of routing one take a alone.",
    "ttl_out_of_range": "The mode's or the app's bindings, or what goes with them, may not last that long or short.",
    "service_number": "400 and 95 numbers cannot be bound; only a temporary callee may be one.",
    "international_number": "Numbers of Hong Kong, Macao, Taiwan and abroad cannot be reached.",
    "special_number": "The number is neither a mobile nor a landline of the mainland: nobody can be called there.",
    "unknown_area": "There is no such area code.",
    "no_pool_in_area": "This app has no pool in the area. Name another one, or send area_match: relaxed.",
    "extension_digits": "Extensions of the app have another number of digits.",
    "extension_zero": "An extension must not be all zeros.",
    "extension_taken": "Somebody has this extension, or had it a moment ago. Ask for another one, or for none.",
    "callback_exclusive": "Give callback.number or callback.tone, not both.",
    "callee_is_a": "A would reach itself. Name somebody else.",
    "party_limit": "A is behind as many X as the platform allows. Release one first.",
    "platform_rejected_request": "The platform did not accept the numbers or options. Mend the request.",
    "platform_refused": "The platform refused because of how the app is set up. An operator must act.",
    "outcome_unknown": "The platform did not say what became of the bind, and nothing of it was found. It is "
    "not sent again, and what may exist ends by itself. Bind anew if you need to.",
    "app_suspended": "The platform has suspended the app. An operator must act; try again later.",
    "audit_first": "The books come from a backup and are compared with the platform first. Try again after "
    "Retry-After.",
    "overloaded": "Too much is waiting. Nothing was accepted; try again after Retry-After.",
    "database_unavailable": "The database did not answer. Try again after Retry-After, with the same Idempotency-Key.",
    "change_in_progress": "The binding is being bound or changed at this moment. Try again after Retry-After.",
    "withdrawn": "The binding was withdrawn before the platform had confirmed it: its client had gone. "
    "Bind anew, with another Idempotency-Key.",
    "binding_ended": "The binding has ended, or is about to: it cannot be changed.",
    "call_over": "The call has ended, or there never was one with this session id in your app.",
    "recording_gone": "The platform has no such recording, or not any more: it keeps them for seven days.",
    "cursor_too_old": "Events after this cursor are kept no more. Read your bindings anew, then begin without it.",
    "foreign_app": "There is no such app, or it is not of the same owner, or you do not bind there.",
    "peer_limit": "The binding has as many live peers as it may have. End one first.",
    "line_shared": "Other orders of the pair share this line. Send on_conflict: rebind to get an X of its own.",
    "party_barred": "The new party may not have this X now. Send on_conflict: rebind to get another one.",
    "not_modifiable": "The platform cannot change this of a bound line. For a tone send on_conflict: rebind.",
    "precondition_failed": "The binding is not what If-Match says any more. Read it again.",
    "rate_limited": "You, or your app, send more requests than the limit allows; RateLimit-Policy tells it. "
    "Try again after Retry-After.",
    "live_limit": "You, or your app, have as many live bindings as the limit allows. Release some, then try again.",
    "unavailable": "Try again after Retry-After.",
    "bad_request": "The request cannot be read.",
    "conflict": "The state of things forbids it now.",
    "unsupported_media_type": "Send plain JSON.",
    "internal_error": "Something went wrong on our side; instance names the request in our log.",
}


async def page(_request: web.Request) -> web.Response:
    """``GET /problems``."""
    rows = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status_of(code)}</td><td>{escape(words)}</td></tr>'
        for code, words in CODES.items()
    )
    return web.Response(
        text="<!doctype html><html lang=en><meta charset=utf-8><title>Problems</title>"
        "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui;margin:2rem;max-width:60rem}"
        "td{padding:.3rem .8rem;vertical-align:top}:target{outline:2px solid}</style>"
        f"<h1>Problems</h1><table><tr><th>code<th>status<th>what to do</tr>{rows}</table>",
        content_type="text/html",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )


def status_of(code: str) -> int:
    """Return the HTTP status that goes with ``code``."""
    defaults = {problem.default_code: problem.status for problem in errors.ALL}
    return defaults.get(code) or _OTHER.get(code, errors.Invalid.status)


#: What is neither a class's default nor a mistake in a field.
_OTHER = {
    "malformed_json": 400,
    "binding_not_found": 404,
    "pool_not_found": 404,
    "number_not_found": 404,
    "peer_not_found": 404,
    "peer_limit": 409,
    "outcome_unknown": 502,
    "idempotency_in_progress": 409,
    "compressed_body": 415,
    "app_suspended": 503,
    "audit_first": 503,
    "overloaded": 503,
    "database_unavailable": 503,
    "change_in_progress": 409,
    "withdrawn": 409,
    "binding_ended": 409,
    "call_over": 404,
    "cursor_too_old": 410,
    "foreign_app": 404,
    "line_shared": 409,
    "party_barred": 409,
    "party_limit": 409,
    "not_modifiable": 409,
    "extension_taken": 409,
    "live_limit": 429,
}

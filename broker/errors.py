"""Everything that can be answered with an error, as a tree.

::

    Problem                                     status  code                    retryable
    ├── BadRequest                                 400  malformed_json ...      no
    ├── Unauthorized                               401  unauthorized            no
    ├── Forbidden                                  403  forbidden               no
    ├── NotFound                                   404  not_found ...           no
    ├── Conflict                                   409  conflict ...            some
    │   └── PoolExhausted                          409  pool_exhausted          later
    ├── Gone                                       410  recording_gone ...      no
    ├── PreconditionFailed                         412  precondition_failed     after reading again
    ├── TooSlow                                    408  request_timeout         yes
    ├── TooLarge                                   413  body_too_large          no
    ├── UnsupportedMedia                           415  compressed_body ...     no
    ├── Invalid                                    422  validation_failed       no
    │   └── PlatformRejected                       422  platform_rejected_request  no
    ├── RateLimited                                429  rate_limited, live_limit yes, after Retry-After
    ├── PlatformRefused                            502  platform_refused        after an operator acted
    └── Unavailable                                503  overloaded, database_unavailable, app_suspended ...  yes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field: ``pointer`` is an RFC 6901 JSON Pointer into the body, or ``header:Name`` / ``path:name``.

    ``code`` is stable: what programs decide by; None = nothing more than that it is wrong.
    """

    pointer: str
    detail: str
    code: str | None = None


class Problem(Exception):
    """An answer of RFC 9457. ``code`` is stable; ``detail`` is for people and never holds a phone number."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"
    retry_after_s: int | None = None

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the problem; ``extra`` are further members of the answer."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.code = code or _shared(errors) or self.default_code
        self.errors = errors
        self.extra = dict(extra or {})
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


def _shared(errors: tuple[FieldError, ...]) -> str | None:
    """Return the code that all of the errors have."""
    codes = {error.code for error in errors}
    return codes.pop() if len(codes) == 1 else None


class BadRequest(Problem):
    """The request cannot be read."""

    status = 400
    title = "Bad request"
    default_code = "bad_request"


class Unauthorized(Problem):
    """No key, or one we do not know."""

    status = 401
    title = "Authentication required"
    default_code = "unauthorized"


class Forbidden(Problem):
    """The key lacks the scope."""

    status = 403
    title = "Not allowed"
    default_code = "forbidden"


class NotFound(Problem):
    """Nothing here that this caller may see."""

    status = 404
    title = "Not found"
    default_code = "not_found"


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status = 405
    title = "Method not allowed"
    default_code = "method_not_allowed"


class Conflict(Problem):
    """The state of things forbids it now."""

    status = 409
    title = "Conflict"
    default_code = "conflict"


class PoolExhausted(Conflict):
    """No X of the allowed pools may be given to this pair now; ``extra`` counts why."""

    title = "No X number available"
    default_code = "pool_exhausted"


class Gone(Problem):
    """It was there once, or never was."""

    status = 410
    title = "Gone"
    default_code = "recording_gone"


class PreconditionFailed(Problem):
    """``If-Match`` names a state that is no longer the binding's."""

    status = 412
    title = "Changed meanwhile"
    default_code = "precondition_failed"


class TooSlow(Problem):
    """The body did not arrive in time."""

    status = 408
    title = "Request timeout"
    default_code = "request_timeout"


class TooLarge(Problem):
    """The body is over the limit."""

    status = 413
    title = "Body too large"
    default_code = "body_too_large"


class UnsupportedMedia(Problem):
    """Not plain JSON."""

    status = 415
    title = "Unsupported media type"
    default_code = "unsupported_media_type"


class Invalid(Problem):
    """Readable, but fields are wrong; ``errors`` names every one."""

    status = 422
    title = "Validation failed"
    default_code = "validation_failed"


class PlatformRejected(Invalid):
    """The platform refused because of what the order system sent."""

    title = "The platform rejected the request"
    default_code = "platform_rejected_request"


class RateLimited(Problem):
    """The caller or its app has asked for more than its limit allows."""

    status = 429
    title = "Too many requests"
    default_code = "rate_limited"
    retry_after_s = 1


class PlatformRefused(Problem):
    """The platform refused because of how the app is set up: an operator must act."""

    status = 502
    title = "The platform refused the call"
    default_code = "platform_refused"


class Unavailable(Problem):
    """Not now; ``Retry-After`` says when to come back."""

    status = 503
    title = "Temporarily unavailable"
    default_code = "unavailable"
    retry_after_s = 1


ALL: tuple[type[Problem], ...] = (
    Problem,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PoolExhausted,
    Gone,
    PreconditionFailed,
    TooSlow,
    TooLarge,
    UnsupportedMedia,
    Invalid,
    PlatformRejected,
    RateLimited,
    PlatformRefused,
    Unavailable,
)

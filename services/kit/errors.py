"""The one tree of errors. Each answers the only question a caller has: try again, try elsewhere, or never?

    MailroomError
    ├── TransientError                 again      it may well work later; `retry_after` says when, if known
    │   ├── Unavailable                again      a dependency cannot be reached; the message names it
    │   ├── KeyUnknown                 again      sealed or signed with a key that this process has not been given (yet)
    │   └── AppendOutcomeUnknown       again      an append was sent and not answered: read back before acting
    ├── ExpectedVersionConflict        again      somebody else wrote first: load, decide and append anew
    ├── RefusedHere                    elsewhere  this account or owner cannot; another one may
    ├── PermanentError                 never      the same input will fail for ever: park it
    │   └── TooMuch                    never      a query that reads too much to be answered in time: narrow it
    ├── SettingsError                  never      the process cannot start with these settings
    └── ApiError                       never      answered to an HTTP caller as it stands
        ├── InvalidRequest       400
        ├── Unauthenticated      401
        ├── Forbidden            403
        ├── NotFound             404
        ├── RequestTimeout       408   again
        ├── Conflict             409
        ├── Gone                 410
        ├── ContentTooLarge      413
        ├── UnsupportedMediaType 415
        ├── TooManyRequests      429
        └── ServiceUnavailable   503   again, after `Retry-After`

Adapters turn foreign errors into these once, at the edge; nothing further in knows a client library's
exceptions.
Messages say what happened and what to do about it. They never carry an address, a body or a secret.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

Answer = Literal["again", "elsewhere", "never"]
"""What a caller may do after an error."""

Detail = Mapping[str, object]
"""One entry of an answer's `details`: for a bad field `{"field": "to[0]", "message": "…"}`."""

MOST_DETAILS = 100
"""So many are answered; the rest is counted."""


class MailroomError(Exception):
    """Root of all errors that Mailroom raises on purpose."""

    answer: ClassVar[Answer] = "never"


class TransientError(MailroomError):
    """Failed this time; the same thing may work later. `retry_after` is in seconds, None = the caller's own
    backoff.
    """

    answer = "again"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(TransientError):
    """A dependency (Kafka, MongoDB, AWS, …) cannot be reached or is not fit to serve now. Nothing was changed
    there.
    """

    def __init__(self, dependency: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{dependency}: {message}", retry_after=retry_after)
        self.dependency = dependency


class KeyUnknown(TransientError):
    """Something was sealed or signed with a key that this process does not have. While FILE_ENCRYPTION_KEY is rotated
    another process may have it already: what was sealed is kept, and can be opened once this one is given the secret.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"key {key_id} is not among the keys of this process: add the secret that it comes from to "
            "MAILROOM_OLD_ENCRYPTION_KEYS and restart"
        )
        self.key_id = key_id


class AppendOutcomeUnknown(TransientError):
    """An append to a stream was sent and its answer was lost: it may or may not stand. Read the stream back
    (primary, majority).
    """

    def __init__(self, stream_id: str, detail: str = "", *, retry_after: float | None = None) -> None:
        reason = f" ({detail})" if detail else ""
        super().__init__(f"append to stream {stream_id} got no answer{reason}: read it back", retry_after=retry_after)
        self.stream_id = stream_id
        self.detail = detail


class ExpectedVersionConflict(MailroomError):
    """The stream is not at the version the decision was made on. `found_version` is None where the store
    cannot tell.
    """

    answer = "again"

    def __init__(self, stream_id: str, expected_version: int, found_version: int | None = None) -> None:
        found = "another version" if found_version is None else f"version {found_version}"
        super().__init__(f"stream {stream_id} is at {found}, not at {expected_version}: load it and decide again")
        self.stream_id = stream_id
        self.expected_version = expected_version
        self.found_version = found_version


class RefusedHere(MailroomError):
    """Refused to us, not to the work: a suspended account, a lease that went to another process. Another one
    may do it.
    """

    answer = "elsewhere"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class PermanentError(MailroomError):
    """The same input will always fail. `reason` is a stable camelCase slug that operators search for;
    `detail` is for people.
    """

    answer = "never"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class TooMuch(PermanentError):
    """A query covers more than may be read for one answer: whoever asked it has to narrow it."""

    def __init__(self, detail: str) -> None:
        super().__init__("tooMuch", detail)


class SettingsError(MailroomError):
    """The environment is not fit to start with. `problems` holds one sentence for each variable, all of them
    at once.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("cannot start, settings need mending:\n" + "\n".join(f"  - {p}" for p in self.problems))


class ApiError(MailroomError):
    """An answer to an HTTP caller: `{"success": false, "error": error, "details": details}` with `status` and
    `headers`. Of more than `MOST_DETAILS` details the first ones are kept; `omitted` counts the others.
    """

    def __init__(
        self,
        status: int,
        error: str,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.details = list(details[:MOST_DETAILS])
        self.omitted = len(details) - len(self.details)
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """400: the request is wrong; `details` lists every field that is. `error`, unless given, says the first of them,
    since many callers show nothing else. `omitted` counts wrong fields that are not even among `details`.
    """

    def __init__(self, error: str | None = None, details: Sequence[Detail] = (), *, omitted: int = 0) -> None:
        super().__init__(400, _first(details, omitted) if error is None else error, details)
        self.omitted += omitted


class Unauthenticated(ApiError):
    """401: nobody known is calling."""

    def __init__(self, error: str) -> None:
        super().__init__(401, error, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """403: the caller is known and may not do this."""

    def __init__(self, error: str, details: Sequence[Detail] = ()) -> None:
        super().__init__(403, error, details)


class NotFound(ApiError):
    """404: there is no such thing, or it belongs to somebody else (the two are never told apart)."""

    def __init__(self, error: str = "Not found.") -> None:
        super().__init__(404, error)


class RequestTimeout(ApiError):
    """408: the rest of the body does not come, or too slowly. The connection is closed: nobody waits for that rest."""

    answer = "again"

    def __init__(self, error: str) -> None:
        super().__init__(408, error, headers={"Connection": "close"})


class Conflict(ApiError):
    """409: the request contradicts what stands already."""

    def __init__(self, error: str, details: Sequence[Detail] = ()) -> None:
        super().__init__(409, error, details)


class Gone(ApiError):
    """410: it existed and was deleted for good."""

    def __init__(self, error: str) -> None:
        super().__init__(410, error)


class ContentTooLarge(ApiError):
    """413: the body is larger than this route takes."""

    def __init__(self, error: str) -> None:
        super().__init__(413, error)


class UnsupportedMediaType(ApiError):
    """415: the body is of a type that this route does not read."""

    def __init__(self, error: str) -> None:
        super().__init__(415, error)


class TooManyRequests(ApiError):
    """429: slow down; `retry_after` in seconds. `headers`: further ones."""

    def __init__(self, error: str, *, retry_after: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(429, error, headers={"Retry-After": str(retry_after)} | dict(headers or {}))


class ServiceUnavailable(ApiError):
    """503: a dependency is away. `details` carries the id of what may have been done already, so that it can
    be repeated.
    """

    answer = "again"

    def __init__(self, error: str, *, retry_after: int = 5, details: Sequence[Detail] = ()) -> None:
        super().__init__(503, error, details, headers={"Retry-After": str(retry_after)})


def _first(details: Sequence[Detail], omitted: int) -> str:
    """The first of these problems as a sentence, and how many others there are."""
    if not details:
        return "The request is not valid."
    field, message = details[0].get("field"), str(details[0].get("message", "is not valid")).rstrip(".")
    others = len(details) - 1 + omitted
    more = f" (and {others:,} more problem{'s' if others > 1 else ''})" if others else ""
    return f"{field}: {message}{more}." if field else f"{message}{more}."

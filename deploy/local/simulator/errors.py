"""SES's refusals in the form in which botocore raises them as modelled exceptions.

REST-JSON errors: the code in `x-amzn-errortype` and in the body, the text under `message`. Statuses as in SES's
service model (API version 2019-09-27).
"""

from uuid import uuid4

import orjson

from deploy.local.simulator.wire import Response

STATUSES = {
    "AccountSuspendedException": 400,
    "AlreadyExistsException": 400,
    "BadRequestException": 400,
    "ConflictException": 409,
    "ExpiredTokenException": 403,
    "InternalServiceErrorException": 500,
    "LimitExceededException": 400,
    "MailFromDomainNotVerifiedException": 400,
    "MessageRejected": 400,
    "NotFoundException": 404,
    "SendingPausedException": 400,
    "ServiceUnavailable": 503,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "UnrecognizedClientException": 403,
}


class SesError(Exception):
    """The simulator says no; nothing was accepted."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or STATUSES.get(code, 400)

    def response(self) -> Response:
        body = orjson.dumps({"__type": self.code, "message": self.message})
        headers = ((b"x-amzn-errortype", self.code.encode()), (b"x-amzn-requestid", str(uuid4()).encode()))
        return Response(self.status, body, headers=headers)


class ProxyRefusal(Exception):
    """Something between the client and SES says no, in a proxy's words."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a proxy answered {status}")
        self.status = status

    def response(self) -> Response:
        return Response(self.status, b"<html><body>The proxy refuses.</body></html>", content_type=b"text/html")


def bad_request(message: str) -> SesError:
    return SesError("BadRequestException", message)

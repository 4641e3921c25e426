"""What AWS decides about a request, for the kinds of policies that our template holds.

Written after "Policy evaluation logic", "IAM JSON policy elements: Condition operators" and "Set operators for
multivalued context keys" of the IAM User Guide:

1. A `Deny` that fits, in any policy, decides.
2. Within one account an `Allow` of the bucket's policy or of the caller's own policies suffices; a caller of another
   account needs both; a service, and somebody without credentials, has only the bucket's policy.
3. A role is assumed by whom its trust policy allows, and by nobody else.
4. Nothing that fits means denied.

What a policy may hold and this does not know raises `UnknownElement`: a table of cases must not pass because something
was overlooked. Organisation policies, boundaries, session policies, ACLs and Block Public Access are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

ASSUMING: Final = "sts:AssumeRole"
Policy = Mapping[str, Any]
Value = str | tuple[str, ...]
"""Of a context key: a tuple where the key has several values, such as the keys of the tags of a request."""


class UnknownElement(Exception):
    """A policy holds what this evaluator does not know."""


class Decision(Enum):
    """The outcome, and why."""

    ALLOWED = "allowed"
    EXPLICITLY_DENIED = "explicitly denied"
    NOT_ALLOWED = "not allowed"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the ARN of a user or role, the name of a service, or neither, which is anybody without credentials."""

    arn: str | None = None
    service: str | None = None
    policies: Sequence[Policy] = ()

    @property
    def account(self) -> str | None:
        """The account of a user or role."""
        return self.arn.split(":")[4] if self.arn else None


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `context` holds what the caller and the object add to what follows from `caller`."""

    caller: Caller
    action: str
    resource: str
    context: Mapping[str, Value] = field(default_factory=dict)


def decide(request: Request, resource_policy: Policy, account: str) -> Decision:
    """What AWS says to `request` of a resource of `account`."""
    caller, context = request.caller, _context(request)
    attached = [s for s in _statements(resource_policy) if _names(s, caller)]
    own = [s for policy in caller.policies for s in _statements(policy)]
    of_resource = {s["Effect"] for s in attached if _fits(s, request, context)}
    of_caller = {s["Effect"] for s in own if _fits(s, request, context)}
    if "Deny" in of_resource | of_caller:
        return Decision.EXPLICITLY_DENIED
    if caller.arn is None or (request.action == ASSUMING and caller.account == account):
        allowed = "Allow" in of_resource
    elif caller.account == account:
        allowed = "Allow" in of_resource | of_caller
    else:
        allowed = "Allow" in of_resource and "Allow" in of_caller
    return Decision.ALLOWED if allowed else Decision.NOT_ALLOWED


def _context(request: Request) -> dict[str, Value]:
    """Keys in lower case: IAM compares the names of keys without case. AWS signs for nobody who has no credentials."""
    found: dict[str, Value] = {"aws:SecureTransport": "true"}
    if request.caller.arn:
        found |= {"aws:PrincipalArn": request.caller.arn, "aws:PrincipalIsAWSService": "false"}
    elif request.caller.service:
        found |= {"aws:PrincipalIsAWSService": "true"}
    return {name.lower(): value for name, value in {**found, **request.context}.items()}


_ELEMENTS: Final = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


def _statements(policy: Policy) -> list[Mapping[str, Any]]:
    statements = _listed(policy["Statement"])
    for statement in statements:
        if unknown := set(statement) - _ELEMENTS:
            raise UnknownElement(f"{statement.get('Sid')}: {', '.join(sorted(unknown))}")
        if statement["Effect"] not in ("Allow", "Deny"):
            raise UnknownElement(f"{statement.get('Sid')}: Effect {statement['Effect']}")
    return statements


def _names(statement: Mapping[str, Any], caller: Caller) -> bool:
    principal = statement["Principal"]
    if principal == "*":
        return True
    if unknown := set(principal) - {"AWS", "Service"}:
        raise UnknownElement(f"Principal {', '.join(sorted(unknown))}")
    for arn in _listed(principal.get("AWS", ())):
        if arn != "*" and not re.fullmatch(r"arn:[^:]+:iam::\d{12}:(role|user)/.+", arn):
            raise UnknownElement(f"Principal {arn}")
        if arn in ("*", caller.arn):
            return True
    return caller.service is not None and caller.service in _listed(principal.get("Service", ()))


def _fits(statement: Mapping[str, Any], request: Request, context: Mapping[str, Value]) -> bool:
    return (
        any(_like(pattern.lower(), request.action.lower()) for pattern in _listed(statement["Action"]))
        and (
            (request.action == ASSUMING and "Resource" not in statement)  # a trust policy: it is about its role
            or any(_like(pattern, request.resource) for pattern in _listed(statement["Resource"]))
        )
        and all(
            _holds(operator, key.lower(), [_filled(value, context) for value in _listed(values)], context)
            for operator, wanted in statement.get("Condition", {}).items()
            for key, values in wanted.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Mapping[str, Value]) -> bool:
    """Whether one line of a condition holds: any of `values` will do, and for a negated operator none may."""
    name, exists = operator.removesuffix("IfExists"), operator.endswith("IfExists")
    name, over = (name.partition(":")[2], name.partition(":")[0]) if ":" in name else (name, None)
    if name == "Null" and not exists and over is None:
        return (key not in context) == (values == ["true"])
    negated = "Not" in name
    match = _OPERATORS.get(name.replace("Not", ""))
    if match is None or (negated and name.replace("Not", "") in ("Bool", "Null")):
        raise UnknownElement(operator)
    if over not in (None, "ForAnyValue", "ForAllValues"):
        raise UnknownElement(operator)
    if key not in context:
        return exists or (over == "ForAllValues" if over else negated)
    found = context[key]
    if isinstance(found, tuple) != (over is not None):
        raise UnknownElement(f"{operator} of {key}, which has {'several values' if over is None else 'one value'}")

    def holds(each: str) -> bool:
        return any(match(value, each) for value in values) != negated

    if isinstance(found, str):
        return holds(found)
    return any(map(holds, found)) if over == "ForAnyValue" else all(map(holds, found))


_VARIABLE = re.compile(r"\$\{([^},]+?)(?:\s*,\s*'([^']*)')?\}")


def _filled(value: str, context: Mapping[str, Value]) -> str:
    """A value with its policy variables put in: `${key}`, or `${key, 'default'}` where the key may be missing."""

    def one(match: re.Match[str]) -> str:
        found = context.get(match[1].strip().lower(), match[2])
        if not isinstance(found, str):
            raise UnknownElement(f"{match[0]} has no single value")
        return found

    return _VARIABLE.sub(one, value)


def _like(pattern: str, text: str) -> bool:
    """`*` stands for any characters and `?` for one; letters count by their case."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _arn_like(pattern: str, arn: str) -> bool:
    """Each of the six parts is compared by itself: `*` does not reach over a colon, except in the last part."""
    wanted, found = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(found) == 6 and all(map(_like, wanted, found))


_OPERATORS: Final[dict[str, Callable[[str, str], bool]]] = {
    "StringEquals": lambda value, found: value == found,
    "StringEqualsIgnoreCase": lambda value, found: value.casefold() == found.casefold(),
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, found: value.lower() == found.lower(),
}


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Mapping) else list(value) if isinstance(value, Iterable) else [value]

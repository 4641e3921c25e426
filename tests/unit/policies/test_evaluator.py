"""The evaluator decides as the IAM User Guide says, and refuses what it does not know."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policies.evaluator import ASSUMING, Caller, Decision, Request, UnknownElement, Value, decide

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
BUCKET = "arn:aws:s3:::bucket/*"
KEY = "arn:aws:s3:::bucket/a/b"
ALLOWED, DENIED, NOT_ALLOWED = Decision.ALLOWED, Decision.EXPLICITLY_DENIED, Decision.NOT_ALLOWED


def statement(effect: str, **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "s3:GetObject", "Resource": BUCKET, **more}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


NOTHING = policy()
OWN = (policy(statement("Allow")),)
GIVEN = policy(statement("Allow", Principal="*"))
REFUSED = policy(statement("Deny", Principal="*"))


@pytest.mark.parametrize(
    ("caller", "bucket", "expected"),
    [
        (Caller(ROLE, policies=OWN), NOTHING, ALLOWED),
        (Caller(ROLE), GIVEN, ALLOWED),
        (Caller(ROLE), NOTHING, NOT_ALLOWED),
        (Caller(ROLE, policies=OWN), REFUSED, DENIED),
        (Caller(ROLE, policies=(policy(statement("Deny")),)), GIVEN, DENIED),
        (Caller("arn:aws:iam::444455556666:role/x", policies=OWN), NOTHING, NOT_ALLOWED),
        (Caller("arn:aws:iam::444455556666:role/x"), GIVEN, NOT_ALLOWED),
        (Caller("arn:aws:iam::444455556666:role/x", policies=OWN), GIVEN, ALLOWED),
        (Caller(service="cloudfront.amazonaws.com"), GIVEN, ALLOWED),
        (Caller(service="cloudfront.amazonaws.com"), NOTHING, NOT_ALLOWED),
        (Caller(), GIVEN, ALLOWED),
        (Caller(), NOTHING, NOT_ALLOWED),
    ],
)
def test_whose_word_counts(caller: Caller, bucket: dict[str, Any], expected: Decision) -> None:
    assert decide(Request(caller, "s3:GetObject", KEY), bucket, ACCOUNT) is expected


@pytest.mark.parametrize(
    ("caller", "trusted", "expected"),
    [
        (Caller(ROLE), ROLE, ALLOWED),
        (Caller(ROLE, policies=(policy(statement("Allow", Action="*", Resource="*")),)), f"{ROLE}2", NOT_ALLOWED),
        (Caller("arn:aws:iam::444455556666:role/x"), "arn:aws:iam::444455556666:role/x", NOT_ALLOWED),
    ],
)
def test_a_role_is_assumed_by_whom_it_trusts(caller: Caller, trusted: str, expected: Decision) -> None:
    trust = policy({"Effect": "Allow", "Action": ASSUMING, "Principal": {"AWS": trusted}})
    assert decide(Request(caller, ASSUMING, f"arn:aws:iam::{ACCOUNT}:role/it"), trust, ACCOUNT) is expected


@pytest.mark.parametrize(
    ("principal", "caller", "expected"),
    [
        ({"AWS": ROLE}, Caller(ROLE), ALLOWED),
        ({"AWS": ROLE}, Caller(f"{ROLE}2"), NOT_ALLOWED),
        ({"AWS": "*"}, Caller(), ALLOWED),
        ({"Service": "a.amazonaws.com"}, Caller(service="a.amazonaws.com"), ALLOWED),
        ({"Service": ["b.amazonaws.com", "a.amazonaws.com"]}, Caller(service="a.amazonaws.com"), ALLOWED),
        ({"Service": "a.amazonaws.com"}, Caller(service="b.amazonaws.com"), NOT_ALLOWED),
        ({"Service": "a.amazonaws.com"}, Caller(ROLE), NOT_ALLOWED),
    ],
)
def test_whom_a_statement_is_about(principal: Any, caller: Caller, expected: Decision) -> None:
    bucket = policy(statement("Allow", Principal=principal))
    assert decide(Request(caller, "s3:GetObject", KEY), bucket, ACCOUNT) is expected


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("s3:GetObject", BUCKET, ALLOWED),
        ("S3:getobject", BUCKET, ALLOWED),
        ("s3:Get*", BUCKET, ALLOWED),
        ("s3:GetObject?ersion", BUCKET, NOT_ALLOWED),
        (["s3:PutObject", "s3:*"], BUCKET, ALLOWED),
        ("s3:GetObject", "arn:aws:s3:::bucket", NOT_ALLOWED),
        ("s3:GetObject", ["arn:aws:s3:::other/*", "arn:aws:s3:::bucket/a/?"], ALLOWED),
        ("s3:GetObject", "arn:aws:s3:::bucket/A/*", NOT_ALLOWED),
    ],
)
def test_what_a_statement_is_about(action: Any, resource: Any, expected: Decision) -> None:
    bucket = policy(statement("Allow", Principal="*", Action=action, Resource=resource))
    assert decide(Request(Caller(ROLE), "s3:GetObject", KEY), bucket, ACCOUNT) is expected


MANY: tuple[str, ...] = ("a", "b")


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"StringEquals": {"k": "v"}}, {"k": "v"}, True),
        ({"StringEquals": {"K": "v"}}, {"k": "v"}, True),
        ({"StringEquals": {"k": "V"}}, {"k": "v"}, False),
        ({"StringEquals": {"k": ["x", "v"]}}, {"k": "v"}, True),
        ({"StringEquals": {"k": "v"}}, {}, False),
        ({"StringEqualsIfExists": {"k": "v"}}, {}, True),
        ({"StringEqualsIfExists": {"k": "v"}}, {"k": "x"}, False),
        ({"StringEqualsIgnoreCase": {"k": "V"}}, {"k": "v"}, True),
        ({"StringNotEquals": {"k": ["x", "v"]}}, {"k": "v"}, False),
        ({"StringNotEquals": {"k": ["x", "y"]}}, {"k": "v"}, True),
        ({"StringNotEquals": {"k": "v"}}, {}, True),
        ({"StringLike": {"k": "a*c"}}, {"k": "abbc"}, True),
        ({"StringLike": {"k": "a?c"}}, {"k": "abbc"}, False),
        ({"StringNotLike": {"k": "a*"}}, {"k": "abc"}, False),
        ({"ArnLike": {"k": "arn:*:iam::*:role/x-*"}}, {"k": "arn:aws:iam::1:role/x-1"}, True),
        ({"ArnLike": {"k": "arn:*:role/x"}}, {"k": "arn:aws:iam::1:role/x"}, False),
        ({"ArnNotLike": {"k": "arn:aws:iam::1:role/*"}}, {"k": "arn:aws:iam::2:role/x"}, True),
        ({"ArnNotLike": {"k": "arn:aws:iam::1:role/*"}}, {}, True),
        ({"Bool": {"k": "false"}}, {"k": "false"}, True),
        ({"Bool": {"k": "false"}}, {"k": "true"}, False),
        ({"Bool": {"k": "false"}}, {}, False),
        ({"BoolIfExists": {"k": "false"}}, {}, True),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": "true"}}, {"k": "v"}, False),
        ({"Null": {"k": "false"}}, {"k": "v"}, True),
        ({"Null": {"k": "false"}}, {}, False),
        ({"ForAnyValue:StringEquals": {"k": "b"}}, {"k": MANY}, True),
        ({"ForAnyValue:StringEquals": {"k": "c"}}, {"k": MANY}, False),
        ({"ForAnyValue:StringEquals": {"k": "c"}}, {}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b", "c"]}}, {"k": MANY}, True),
        ({"ForAllValues:StringEquals": {"k": ["a"]}}, {"k": MANY}, False),
        ({"ForAllValues:StringEquals": {"k": ["a"]}}, {}, True),
        ({"StringEquals": {"k": "${other}"}}, {"k": "v", "other": "v"}, True),
        ({"StringEquals": {"k": "${other, 'none'}"}}, {"k": "none"}, True),
        ({"StringNotEquals": {"k": "${other, 'none'}"}}, {"k": "v", "other": "v"}, False),
        ({"StringEquals": {"k": "v"}, "Bool": {"b": "true"}}, {"k": "v"}, False),
        ({"StringEquals": {"k": "v", "l": "w"}}, {"k": "v", "l": "x"}, False),
    ],
)
def test_conditions(condition: Any, context: dict[str, Value], holds: bool) -> None:
    bucket = policy(statement("Allow", Principal="*", Condition=condition))
    found = decide(Request(Caller(ROLE), "s3:GetObject", KEY, context), bucket, ACCOUNT)
    assert found is (ALLOWED if holds else NOT_ALLOWED)


@pytest.mark.parametrize(
    ("caller", "context", "expected"),
    [
        (Caller(ROLE), {"aws:PrincipalArn": ROLE, "aws:PrincipalIsAWSService": "false"}, True),
        (Caller(service="a.amazonaws.com"), {"aws:PrincipalIsAWSService": "true"}, True),
        (Caller(), {}, True),
    ],
)
def test_what_aws_says_of_a_caller(caller: Caller, context: dict[str, str], expected: bool) -> None:
    known = {"StringEquals": context} if context else {}
    absent = {"Null": {k: "true" for k in ("aws:PrincipalArn", "aws:PrincipalIsAWSService") if k not in context}}
    bucket = policy(statement("Allow", Principal="*", Condition={**known, **(absent if absent["Null"] else {})}))
    assert (decide(Request(caller, "s3:GetObject", KEY), bucket, ACCOUNT) is ALLOWED) is expected


@pytest.mark.parametrize(
    "bad",
    [
        statement("Allow", NotPrincipal="*"),
        statement("Allow", Principal="*", NotAction="s3:*"),
        statement("Allow", Principal={"Federated": "x"}),
        statement("Allow", Principal={"AWS": ACCOUNT}),
        statement("allow", Principal="*"),
        statement("Allow", Principal="*", Condition={"StringEqual": {"k": "v"}}),
        statement("Allow", Principal="*", Condition={"NumericEquals": {"k": "1"}}),
        statement("Allow", Principal="*", Condition={"ForSomeValues:StringEquals": {"k": "v"}}),
        statement("Allow", Principal="*", Condition={"StringEquals": {"many": "a"}}),
        statement("Allow", Principal="*", Condition={"ForAnyValue:StringEquals": {"k": "v"}}),
        statement("Allow", Principal="*", Condition={"StringEquals": {"k": "${missing}"}}),
    ],
)
def test_what_is_not_known_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UnknownElement):
        decide(Request(Caller(ROLE), "s3:GetObject", KEY, {"k": "v", "many": MANY}), policy(bad), ACCOUNT)

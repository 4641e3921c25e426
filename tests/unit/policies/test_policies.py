"""Who may do what: the template's policies, rendered and asked, case by case; and no clause of them without a case."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.policies.cases import CASES, EVERYTHING, PLAIN, Case, documents, in_words
from tests.unit.policies.evaluator import Decision, Policy, UnknownElement
from tests.unit.policies.template import Rendered, source


@pytest.mark.parametrize("case", CASES, ids=in_words)
def test_who_may_do_what(case: Case) -> None:
    assert case.decided() is case.expected


def test_the_table_is_about_every_policy_that_the_template_can_make() -> None:
    holding = {
        name
        for name, each in source()["Resources"].items()
        if {"PolicyDocument", "AssumeRolePolicyDocument"} & each.get("Properties", {}).keys()
    }
    assert set(documents(EVERYTHING)) == holding


@pytest.mark.parametrize(
    ("rendered", "name"),
    [(rendered, name) for rendered in (EVERYTHING, PLAIN) for name in documents(rendered)],
    ids=in_words,
)
def test_every_clause_makes_a_difference(rendered: Rendered, name: str) -> None:
    """Each change to the policy is seen by some case: nothing stands in it that no case needs, or keeps out."""
    cases = [case for case in CASES if case.rendered is rendered and name in case.asked]
    unseen = [
        what
        for what, policy in _changes(documents(rendered)[name])
        if not any(_says_otherwise(case, {**documents(rendered), name: policy}) for case in cases)
    ]
    assert unseen == []


def _says_otherwise(case: Case, policies: dict[str, Policy]) -> bool:
    return case.decided(policies) is not case.expected


def _changes(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """The policy without each of its clauses: a statement, one of several actions, resources or principals, a condition
    or one of its values. And with each Allow stretched over everything of its service, and (where that is not its own
    resource anyway) everywhere.
    """
    for index, statement in enumerate(policy["Statement"]):
        sid = statement.get("Sid", f"statement {index}")
        yield f"without {sid}", _with(policy, index, None)
        for change, changed in _of_statement(statement):
            yield f"{sid} {change}", _with(policy, index, changed)


def _of_statement(statement: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for element in {"Action", "Resource"} & statement.keys():
        for each, rest in _one_less(statement[element]):
            yield f"without {each}", {**statement, element: rest}
    if isinstance(principals := statement.get("Principal"), dict):
        for kind in principals if len(principals) > 1 else ():
            yield f"without {kind}", {**statement, "Principal": {k: v for k, v in principals.items() if k != kind}}
        for kind, who in principals.items():
            for each, rest in _one_less(who):
                yield f"without {each}", {**statement, "Principal": {**principals, kind: rest}}
    for operator, keys in statement.get("Condition", {}).items():
        for key, values in keys.items():
            less = copy.deepcopy(statement)
            del less["Condition"][operator][key]
            yield f"without {operator} {key}", less
            for each, rest in _one_less(values):
                less = copy.deepcopy(statement)
                less["Condition"][operator][key] = rest
                yield f"without {operator} {key} {each}", less
    if statement["Effect"] == "Allow" and "Resource" in statement:
        first = statement["Action"] if isinstance(statement["Action"], str) else statement["Action"][0]
        yield "with every action", {**statement, "Action": f"{first.partition(':')[0]}:*"}
        if "Principal" not in statement and statement["Resource"] != "*":
            yield "everywhere", {**statement, "Resource": "*"}


def _one_less(values: Any) -> Iterator[tuple[str, list[str]]]:
    if isinstance(values, list) and len(values) > 1:
        for each in values:
            yield each, [other for other in values if other != each]


def _with(policy: Policy, index: int, statement: dict[str, Any] | None) -> Policy:
    statements = list(policy["Statement"])
    statements[index : index + 1] = [] if statement is None else [statement]
    return {**policy, "Statement": statements}


def test_a_policy_that_the_evaluator_does_not_know_is_no_pass() -> None:
    strange = {"Effect": "Allow", "NotPrincipal": "*", "Action": "*", "Resource": "*"}
    bucket = documents(PLAIN)["FilesBucketPolicy"]
    changed = {**documents(PLAIN), "FilesBucketPolicy": {"Statement": [*bucket["Statement"], strange]}}
    with pytest.raises(UnknownElement):
        Case(PLAIN, "files", "s3:PutObject", "object", {}, Decision.ALLOWED).decided(changed)

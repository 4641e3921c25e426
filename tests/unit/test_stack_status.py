"""What `make status` says of a part that is not ready."""

from __future__ import annotations

import json

from deploy.local.parts import in_short


def test_only_what_is_not_ready_is_told() -> None:
    told = {
        "ready": False,
        "draining": False,
        "dependencies": {"MongoDB": "no answer within 2 s", "Kafka": "reachable"},
        "components": {
            "publisher": {"live": True, "ready": True, "state": "healthy"},
            "email-intake-low": {"live": True, "ready": False, "reasons": ["too many", "far behind"], "partitions": []},
            "projector file": {"live": False, "ready": False, "state": "no primary answers"},
        },
    }
    assert in_short(json.dumps(told)) == (
        "MongoDB: no answer within 2 s, email-intake-low: too many; far behind, projector file: no primary answers"
    )


def test_another_answer_is_told_as_it_is() -> None:
    draining = json.dumps({"ready": False, "draining": True, "dependencies": {}, "components": {}})
    for body in ("Bad Gateway", "[1]", '{"error": "x"}', draining):
        assert in_short(body) == body
    assert in_short("x" * 3000) == "x" * 2000

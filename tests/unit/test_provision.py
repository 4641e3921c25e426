"""What is told where a part of the local stack cannot be fetched."""

from __future__ import annotations

import sys

import pytest

from deploy.local.provision import _run
from deploy.local.site import StackError

FETCH = "raise OSError('no route to the registry')"
PROXY = "raise OSError('[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate')"


def _message(program: str) -> str:
    with pytest.raises(StackError) as caught:
        _run([sys.executable, "-c", program], "fetch Kafka")
    return str(caught.value)


def test_the_cause_is_told_without_the_frames_of_its_traceback() -> None:
    assert _message(FETCH).splitlines() == [
        "Could not fetch Kafka (exit status 1). Check the network and the package registry settings, then run the "
        "command again.",
        "OSError: no route to the registry",
    ]


def test_what_is_indented_and_no_frame_is_told() -> None:
    """As pip and Maven explain themselves."""
    assert _message("raise SystemExit('ERROR: no such version\\n  there are 1.0 and 1.1')").splitlines()[1:] == [
        "ERROR: no such version",
        "  there are 1.0 and 1.1",
    ]


def test_behind_a_proxy_that_signs_by_itself_it_says_what_to_set() -> None:
    assert "name a file with its authority in PIP_CERT and REQUESTS_CA_BUNDLE" in _message(PROXY)

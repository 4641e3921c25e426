"""Did a person open the mail, or a program on the way?

A proxy that fetches images for its users (Gmail's, Yahoo's, Apple's privacy protection) or a scanner that follows
links says nothing certain about a person, so such facts are marked `machine` and stay out of the rates.
Sources: Apple Mail Privacy Protection fetches with the bare user agent `Mozilla/5.0`; Google and Yahoo name their
image proxies; link scanners name themselves or are command-line HTTP clients.
"""

from __future__ import annotations

import re

_MACHINES = re.compile(
    r"googleimageproxy|yahoomailproxy|yahoocachesystem|barracuda|mimecast|proofpoint|urldefense|messagelabs|symantec"
    r"|trendmicro|fireeye|forcepoint|bitdefender|sophos|\bbot\b|bot/|crawler|spider|scanner|preview|headless"
    r"|python-requests|python-urllib|aiohttp|httpx|\bcurl/|\bwget/|go-http-client|okhttp|java/|libwww-perl",
    re.IGNORECASE,
)
_APPLE_PRIVACY = "Mozilla/5.0"


def is_machine(user_agent: str | None) -> bool:
    """True where the user agent is that of a proxy, a scanner or a program, or missing altogether."""
    if user_agent is None or not user_agent.strip():
        return True
    return user_agent.strip() == _APPLE_PRIVACY or _MACHINES.search(user_agent) is not None

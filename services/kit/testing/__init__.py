"""Fakes that ship: each passes the suite of the real thing (`tests/ports`), or stands for time and ids."""

from services.kit.testing.clock import FakeClock, FakeIds
from services.kit.testing.logs import Captured, captured_logs

__all__ = ["Captured", "FakeClock", "FakeIds", "captured_logs"]

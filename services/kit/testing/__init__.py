"""Fakes that ship: each passes the same suite as the real thing (`tests/ports`), or stands for time and ids."""

from services.kit.testing.clock import FakeClock, FakeIds

__all__ = ["FakeClock", "FakeIds"]

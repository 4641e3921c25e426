"""Invariant 13: what a request may cost."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

BODIES = "services/kit/bodies.py"
_BODIES = "tests/unit/kit/test_bodies.py::"
_DOOR = "tests/unit/email_service/test_http_door_validation.py::"
_HTTP = "tests/unit/kit/test_http.py::"

DOORS: tuple[Mutation, ...] = (
    Mutation(
        "13a",
        "a body is read before anybody has asked who sends it",
        "services/kit/http.py",
        "                await ask(request)\n",
        "                pass\n",
        (_HTTP + "test_who_may_not_send_a_body_is_told_before_a_byte_of_it_is_read",),
    ),
    Mutation(
        "13b",
        "a route that says nothing is open to everybody",
        "services/kit/auth.py",
        "    if not found:\n",
        "    if False:\n",
        (_HTTP + "test_a_route_that_does_not_say_who_may_call_it_is_refused",),
    ),
    Mutation(
        "13c",
        "a body may be as large as its sender likes",
        BODIES,
        "        if size > self._limit:\n",
        "        if False:\n",
        (
            _BODIES + "test_one_that_is_announced_too_large_is_not_read",
            _BODIES + "test_one_that_is_not_announced_is_read_up_to_the_limit",
        ),
    ),
    Mutation(
        "13d",
        "all bodies that come are taken at once",
        BODIES,
        "        if self._taken + more > room:\n",
        "        if False:\n",
        (
            _BODIES + "test_without_room_one_is_refused_at_once_and_later_taken",
            _BODIES + "test_one_that_is_not_announced_takes_room_as_it_comes",
        ),
    ),
    Mutation(
        "13e",
        "a few large bodies keep all small ones out",
        BODIES,
        "room = self._in_flight if size <= SMALL else largest_body(self._in_flight)",
        "room = self._in_flight",
        (_BODIES + "test_large_bodies_leave_room_for_small_ones",),
    ),
    Mutation(
        "13f",
        "the room of a request that failed is lost",
        BODIES,
        '        try:\n            body.expect(int(request.headers.get("content-length", 0)))\n'
        "            yield body.receive\n        finally:\n            self.release(body.reserved)\n",
        '        body.expect(int(request.headers.get("content-length", 0)))\n'
        "        yield body.receive\n        self.release(body.reserved)\n",
        (_BODIES + "test_however_a_request_ends_its_room_is_free",),
    ),
    Mutation(
        "13g",
        "a body may come as slowly as its sender likes, while it comes",
        BODIES,
        "        if not self._whole and self._bodies.seconds_left(self._begun, self._received) < 0:\n",
        "        if False:\n",
        (_BODIES + "test_a_body_below_the_rate_is_refused_once_the_grace_is_over",),
    ),
    Mutation(
        "13h",
        "values are counted after they were built",
        "services/kit/http.py",
        "        hold_to_values(body)\n",
        "",
        (_DOOR + "test_a_body_of_too_many_values_is_refused_before_it_is_parsed",),
    ),
    Mutation(
        "13i",
        "text that holds commas is taken for values",
        BODIES,
        'b"".join(unescaped.split(b\'"\')[::2])',
        "body",
        (_BODIES + "test_text_may_hold_what_it_likes",),
    ),
)

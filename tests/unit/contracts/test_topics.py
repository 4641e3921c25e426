"""What the topics are to be."""

from __future__ import annotations

from contracts.topics import FILES_COMMANDS, LANES, TOPICS


def test_the_time_of_a_command_is_the_brokers_and_of_all_else_the_producers() -> None:
    commands = {topic.name for topic in (*LANES.values(), FILES_COMMANDS)}
    for topic in TOPICS:
        expected = "LogAppendTime" if topic.name in commands else "CreateTime"
        assert topic.configs["message.timestamp.type"] == expected

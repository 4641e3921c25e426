"""Background work and requests have MongoDB clients of their own, and what takes long one that waits."""

from types import SimpleNamespace
from typing import Any

from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_read_models import STATISTICS
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.foundation import foundation, in_background
from services.events.projections.projection import EMAIL_LOG
from services.events.settings import EventsSettings
from services.kit.settings import load

ENVIRON = {
    "MAILROOM_KAFKA_BOOTSTRAP": "127.0.0.1:9",
    "MAILROOM_MONGO_URL": "mongodb://127.0.0.1:9",
    "MAILROOM_PUBLIC_URL": "http://127.0.0.1:8080",
    "MAILROOM_JWT_ALGORITHM": "HS256",
    "MAILROOM_JWT_SECRET": "j" * 40,
    "FILE_ENCRYPTION_KEY": "k" * 40,
    "MAILROOM_MONGO_CONNECTIONS": "3",
}


async def test_the_background_has_few_connections_and_requests_have_others() -> None:
    base = foundation(load(EventsSettings, ENVIRON), serves=True)
    background = in_background(base)
    pools = [each.client.options.pool_options for each in (base, background)]
    assert [pool.max_pool_size for pool in pools] == [50, 3]
    assert [pool.min_pool_size for pool in pools] == [50, 3]
    assert set(base.sides) == set(background.sides) == {"email_log", "file"}
    for name, side in base.sides.items():
        assert background.sides[name].database.client is background.client
        assert side.database.client is base.client
        assert background.sides[name].database.name == side.database.name
    for each in (base, background):
        await each.client.close()


async def test_indexes_and_sums_have_hours_where_requests_have_seconds() -> None:
    base = foundation(load(EventsSettings, ENVIRON), serves=True)
    background = in_background(base)
    limits = [each.options.pool_options.socket_timeout or 0.0 for each in (base.client, base.patient)]
    assert 0 < limits[0] < 30
    assert limits[1] > 3600
    assert base.patient.options.pool_options.min_pool_size == 0
    for each in (base, background):
        for side in each.sides.values():
            assert side.patient is not None
            assert (side.patient.client, side.patient.name) == (base.patient, side.database.name)
    for client in (base.client, background.client, base.patient):
        await client.close()


class Asked:
    """A database that notes what is asked of its collections. There is one dirty bucket in it, and nothing else."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __getitem__(self, collection: str) -> Any:
        def ask(name: str, found: Any) -> Any:
            async def answer(*_: object) -> Any:
                self.asked.append((collection, name))
                return found

            return answer

        async def rows(_: object) -> list[Any]:
            return []

        answers: dict[str, Any] = {
            "create_indexes": None,
            "aggregate": SimpleNamespace(to_list=rows),
            "find_one": {"dirty": 1} if collection.endswith(STATISTICS) else None,
            "update_one": SimpleNamespace(matched_count=1),
        }
        return SimpleNamespace(**{name: ask(name, found) for name, found in answers.items()})


async def test_what_takes_long_is_asked_of_the_patient_client() -> None:
    requests, patient = Asked(), Asked()
    asked: tuple[Any, Any] = (requests, patient)
    await MongoGenerations(asked[0], EMAIL_LOG, patient=asked[1]).ensure_indexes(3)
    assert await MongoStatistics(asked[0], EMAIL_LOG.name, 3, patient=asked[1]).refresh("2026-11-24/auth")
    assert patient.asked == [("email_log__g3", "create_indexes"), ("email_log__g3", "aggregate")]
    buckets = f"email_log__g3{STATISTICS}"
    assert requests.asked == [("generations", "find_one"), (buckets, "find_one"), (buckets, "update_one")]


async def test_a_command_opens_what_it_needs() -> None:
    base = foundation(load(EventsSettings, ENVIRON))
    assert base.client.options.pool_options.min_pool_size == 0
    await base.client.close()

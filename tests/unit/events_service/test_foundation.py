"""Background work and requests have MongoDB clients of their own."""

from services.events.foundation import foundation, in_background
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


async def test_a_command_opens_what_it_needs() -> None:
    base = foundation(load(EventsSettings, ENVIRON))
    assert base.client.options.pool_options.min_pool_size == 0
    await base.client.close()

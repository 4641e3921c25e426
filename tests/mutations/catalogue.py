"""All mutations, by invariant. `docs/invariants.md` shows them; `python -m tests.mutations` tries them."""

from __future__ import annotations

from tests.mutations.doors import DOORS
from tests.mutations.files import FILES
from tests.mutations.keeping import KEEPING
from tests.mutations.mutation import Mutation
from tests.mutations.reading import READING
from tests.mutations.reporting import REPORTING
from tests.mutations.sending import SENDING

MUTATIONS: tuple[Mutation, ...] = tuple(
    sorted((*SENDING, *KEEPING, *READING, *FILES, *DOORS, *REPORTING), key=lambda each: (each.invariant, each.name))
)

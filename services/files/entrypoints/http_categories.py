"""The HTTP door of what categories allow, so that nobody keeps a copy of the settings.

GET /api/files/categories   each category's rules
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends

from contracts.base import Model
from contracts.files.values import FileCategory
from services.files.domain.categories import Rules
from services.kit.auth import Principal, require
from services.kit.http import Answer, router

DAY = timedelta(days=1)


class CategoryRules(Model):
    """What a category allows. `*/*` among `types` stands for any type, `text/*` among `compressibleTypes` for any text.

    Attributes:
        compressible_types: what may be uploaded as a gzip stream, with `contentEncoding`.
        lifetime_days: how long a file lives from its request on; absent: until it is deleted.
    """

    name: FileCategory
    types: list[str]
    max_bytes: int
    may_be_public: bool
    scanned: bool
    compressible_types: list[str]
    lifetime_days: float | None = None


class Categories(Model):
    """All of them."""

    categories: list[CategoryRules]


def categories_router(rules: Mapping[FileCategory, Rules]) -> APIRouter:
    """The route above."""
    routes = router("/api/files", tag="uploads")
    told = Categories(categories=[_told(name, each) for name, each in rules.items()])

    @routes.get("/categories", response_model_exclude_none=True, summary="What categories allow")
    async def categories(_: Annotated[Principal, Depends(require("files:create"))]) -> Answer[Categories]:
        """Types, sizes, and what may be uploaded compressed: what `upload-url` will hold an upload to."""
        return Answer(data=told)

    return routes


def _told(name: FileCategory, rules: Rules) -> CategoryRules:
    return CategoryRules(
        name=name,
        types=sorted(rules.types),
        max_bytes=rules.max_bytes,
        may_be_public=rules.public,
        scanned=rules.scan,
        compressible_types=sorted(rules.compressible()),
        lifetime_days=None if rules.lifetime is None else rules.lifetime / DAY,
    )

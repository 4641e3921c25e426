"""How an upload in parts is cut. S3's rules: 1 to 10,000 parts, each but the last of 5 MiB to 5 GiB
(Amazon S3 User Guide, "Amazon S3 multipart upload limits").
"""

from __future__ import annotations

from typing import Final

MIB: Final = 1 << 20
LEAST: Final = 5 * MIB
MOST_PARTS: Final = 10_000
USUAL: Final = 8 * MIB


def part_size(size: int) -> int:
    """Bytes of every part but the last of an upload of `size` bytes, in whole MiB."""
    needed = -(-size // MOST_PARTS)
    return max(USUAL, -(-needed // MIB) * MIB)


def is_of_parts(checksum: str | None) -> bool:
    """Whether a checksum is one of the parts' checksums."""
    return checksum is not None and "-" in checksum


def part_count(size: int) -> int:
    """How many parts an upload of `size` bytes has; an empty one has one."""
    return max(1, -(-size // part_size(size)))


def size_of(number: int, size: int) -> int:
    """Bytes of part `number`, from 1 on. Raises ValueError for a part that there is not."""
    count, each = part_count(size), part_size(size)
    if not 1 <= number <= count:
        raise ValueError(f"there is no part {number}: the upload has parts 1 to {count}")
    return each if number < count else size - each * (count - 1)

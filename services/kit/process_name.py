"""What a process is called among others: in leases, in what it tells of its breakers."""

import os
import socket


def process_name() -> str:
    """`host:pid`; a later process of the host may have it again."""
    return f"{socket.gethostname()}:{os.getpid()}"

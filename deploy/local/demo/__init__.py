"""`make demo`: mail through both doors of a running stack, and each message held against what must become of it."""

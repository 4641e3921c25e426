"""Projections: events in, one document out. Pure: no I/O, no clock, no ids made here."""

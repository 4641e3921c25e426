"""Streams of decisions: one document per aggregate, appended to by compare-and-set, published from itself.

`port.py` says what a store promises, `mongo.py` and `memory.py` keep it, `relay.py` publishes what is
appended, `due.py` hands out the streams whose time has come.
"""

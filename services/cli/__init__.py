"""The operator's command `mailroom`: the top layer, which may use everything and which nothing uses.

Modules here import only the standard library and typer when they are loaded; each command imports what it needs when it
runs, so that help and completion come at once.
"""

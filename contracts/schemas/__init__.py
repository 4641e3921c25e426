"""JSON Schemas of the published language, exported beside this file. `python -m contracts.schemas [--check]`."""

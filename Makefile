# Mailroom: `make up` starts everything on this machine, `make demo` shows it working, `make help` lists the rest.
# Needs Linux (x86-64), Python 3.11 or later with venv, and make. Everything else is fetched once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PY := .venv/bin/python
SETUP := .venv/.complete
PART ?=
SOURCES := contracts services deploy tests $(wildcard bench)

.PHONY: help setup up down restart status logs demo test check unit bench test-long mutants aws lock format schemas compose clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(SETUP)  ## make the Python environment (.venv) from the hash-pinned lock

$(SETUP): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Mailroom needs Python 3.11 or later as '$(PYTHON)'. Install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python has no venv module. Install it (on Debian and Ubuntu: apt-get install python3-venv) and run again." >&2; exit 1; }
	@echo "setting up .venv from requirements/dev.txt (once, about a minute)"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --no-input --disable-pip-version-check --require-hashes -r requirements/dev.txt || { \
		echo "The packages could not be installed. Check the network and pip's settings, and run again." >&2; exit 1; }
	@touch $@

up: $(SETUP)  ## start the whole stack (or PART="kafka mongo"); can be run again
	@$(PY) -m deploy.local up $(PART)

down: $(SETUP)  ## stop it; the data stays in .mailroom/
	@$(PY) -m deploy.local down $(PART)

restart: $(SETUP)  ## restart one part: make restart PART=email
	@$(PY) -m deploy.local restart $(PART)

status: $(SETUP)  ## what runs, where, and whether it works
	@$(PY) -m deploy.local status

logs: $(SETUP)  ## the end of the logs; PART=email for one, FOLLOW=1 to go on
	@$(PY) -m deploy.local logs $(if $(FOLLOW),--follow) $(PART) || test $$? -eq 141  # nobody reads on

demo: up  ## send mail through both doors, upload files, and hold each one's status against the expected one
	@$(PY) -m deploy.local.demo

check: $(SETUP)  ## format, lint, types, imports, templates, contracts, unit tests: what CI runs first
	@$(PY) -m deploy.checks

unit: $(SETUP)  ## unit tests only
	@$(PY) -m pytest tests/unit -q

test: $(SETUP)  ## all tests but those of `make test-long`, on a real stack of their own; ARGS="tests/unit -v" for some
ifeq ($(strip $(ARGS)),)
	@$(PY) -m tests.suite $(if $(AGAIN),--again)
else
	@$(PY) -m pytest $(ARGS)
endif

test-long: $(SETUP)  ## what a release needs beside `make test`: long outages, many kills, large files, all mutants
	@$(PY) -m tests.suite --long

mutants: $(SETUP)  ## break each invariant in a copy of the checkout: its tests must notice
	@$(PY) -m tests.mutations $(ARGS)

aws: $(SETUP)  ## deploy to AWS: make aws ARGS="deploy mailroom-production EnvironmentName=production …" (deploy/aws/README.md)
	@$(PY) -m deploy.aws $(ARGS)

bench: $(SETUP)  ## measurements, each beside its baseline
	@$(PY) -m bench $(ARGS)

format: $(SETUP)  ## format and mend what can be mended by itself
	@.venv/bin/ruff check --fix-only --quiet $(SOURCES)
	@.venv/bin/ruff format $(SOURCES)

schemas: $(SETUP)  ## write contracts/schemas (JSON Schemas and AsyncAPI) from the models
	@$(PY) -m services.cli contracts export

compose: $(SETUP)  ## write docker-compose.yml from deploy/processes.py
	@$(PY) -m deploy.compose

lock: $(SETUP)  ## compile requirements/*.in to hash-pinned *.txt, keeping versions (UPGRADE=1 takes new ones)
	@cd requirements && for name in runtime dev msk stack ministack bench; do \
		constraint=""; if [ $$name = dev -o $$name = msk ]; then constraint="--constraint runtime.txt"; fi; \
		../.venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
			--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) $$constraint $$name.in -o $$name.txt; \
		echo "requirements/$$name.txt"; done

clean: down  ## stop the stack and throw its data, logs and downloads away
	@rm -rf .mailroom

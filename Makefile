# relay on a fresh machine: `make run` starts it, `make test` tests it. Both set up what they need
# (.venv, Python packages, redis-server) and are quick when it is there.
BIN := .venv/bin
CHECKED := relay workers tests bench
# Tests drive relay with a foreign client where they name it.
FOREIGN := $(if $(shell grep -rlw swaks tests --include='*.py' 2>/dev/null),swaks)
# Redis lives by a wall clock of its own where a test sets it.
FOREIGN += faketime
# Only root makes the hosts that some tests have: network namespaces.
FOREIGN += $(if $(filter 0,$(shell id -u)),ip)

# Tests mostly wait, so three run side by side on two cores; the tests of one file share a process.
SIDE_BY_SIDE := -n 3 --dist loadfile

# `relay up` stops when make is killed: the kernel tells it.
WITH_MAKE := $(shell command -v setpriv >/dev/null && echo setpriv --pdeathsig TERM)

.PHONY: help run test lint chaos bench soak set-up clean

help:
	@echo "make run     start relay on this machine in sink mode: no mail leaves it (ARGS=...)"
	@echo "make test    lint and the whole test suite (ARGS='-k name' for some of it)"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the benchmarks (ARGS='b1 b2' for some, ARGS=--quick for a short form)"
	@echo "make chaos   the fault suite in its long form (ARGS=f08 for one)"
	@echo "make soak    one hour at half of its speed (ARGS=10m for less): does memory grow?"
	@echo "make clean   remove .venv, caches and build results"

set-up:
	@deploy/setup.sh redis-server

run: set-up
	@exec $(WITH_MAKE) $(BIN)/relay up $(ARGS)

test:
	@deploy/setup.sh redis-server $(FOREIGN)
	@$(MAKE) --no-print-directory lint; linted=$$?; \
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS); tested=$$?; \
	test $$linted = 0 || echo "make lint found faults (above)"; \
	exit $$((linted ? linted : tested))

lint: set-up
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check --quiet $(CHECKED)
	$(BIN)/mypy

bench: set-up
	@$(BIN)/python -m bench $(ARGS)

chaos:
	@deploy/setup.sh redis-server $(FOREIGN)
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: set-up
	@$(BIN)/python -m bench.soak $(ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

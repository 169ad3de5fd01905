# Two commands on a fresh machine do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: demo test check format setup-system clean

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/check: $(VENV)/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[check]'
	touch $@

demo: $(VENV)/run ## pull real files from the emulator, interrupted once
	$(BIN)/python -m examples.demo

test: $(VENV)/test ## the whole test suite
	$(BIN)/python -m pytest -n 2

setup-system: ## what only Debian has; nothing of it is needed for demo, test and check
	@command -v apt-get >/dev/null || { echo "no apt-get here: skipped"; exit 0; }

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

# Two commands: `make demo` goes from nothing to class averages and a report, `make test` runs every check.
# Each makes .venv and installs what it needs; a second call finds the stamps and starts at once.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test format clean

demo: $(VENV)/.installed
	$(BIN)/cryodc demo --out demo/$(shell date +%Y%m%d-%H%M%S)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@mkdir -p build/typing && ln -sfn ../../cli build/typing/cryodc_cli
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -m cryodc_cli.reference > docs/commands.md
	$(BIN)/python docs/site/troubleshooting.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# torch comes first and pinned, so that no later package chooses another build of it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[dev,view]'
	@touch $@ $(VENV)/.installed

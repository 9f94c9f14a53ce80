# The two commands are `make run` and `make test`. Both make their own .venv and are quick when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint bench vision clean

run: $(VENV)/.installed
	$(BIN)/constructible eval quickstart

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(VENV)/.installed-dev
	$(BIN)/constructible kernels bench
	$(BIN)/constructible eval bench
	$(BIN)/constructible eval curve-code $(CURVE_CODE_ARGS)
	$(BIN)/constructible eval curve-images $(CURVE_IMAGES_ARGS)
	$(BIN)/constructible eval publish

# Photographs where CONSTRUCTIBLE_DATA has them, otherwise the generated part world; the report is in runs/vision.
vision: $(VENV)/.installed
	$(BIN)/constructible vision track $(VISION_ARGS)

# A stamp is newer than what it was made from, so a second call installs nothing. The virtual environment is made
# again only where it is missing or its interpreter no longer runs.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"error: $(PYTHON) is Python {v[0]}.{v[1]}; 3.11 to 3.13 is needed. Fix: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

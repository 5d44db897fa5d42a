# Each target sets up what it needs by itself. On a new machine: python3 (3.11 or later, with venv), make and git.

PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
QA := .venv-qa
BIN := $(VENV)/bin
UV := $(BIN)/uv
OLDEST_AIRFLOW := 3.1.8
PYLINAC := pylinac>=3.49

# uv trusts the machine's certificate authorities, as pip and git do: hospitals often bring their own.
export UV_NATIVE_TLS := 1
export UV_NO_PROGRESS := 1

.DEFAULT_GOAL := help
# Options of `make bench`, e.g. BENCH="--only receive --rounds 3".
BENCH ?=

.PHONY: help demo demo-ui test test-slow peers qa bench bench-serving lint docs unit oldest wheel constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# ---------------------------------------------------------------------------------------------------------- set-up

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# Two sizes: what the demo needs, and everything a developer needs.
.stamps/demo: pyproject.toml constraints/newest.txt | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python -c constraints/newest.txt -e '.[demo]'
	@mkdir -p .stamps && touch $@

.stamps/develop: pyproject.toml constraints/newest.txt | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python -c constraints/newest.txt -e '.[demo]' --group test --group fuzz --group lint --group docs
	@mkdir -p .stamps && touch $@ .stamps/demo

.stamps/oldest: pyproject.toml constraints/airflow-$(OLDEST_AIRFLOW).txt | $(UV)
	$(PYTHON) -m venv $(OLDEST)
	$(UV) pip install --quiet --python $(OLDEST)/bin/python -c constraints/airflow-$(OLDEST_AIRFLOW).txt -e '.[demo]' --group test
	@mkdir -p .stamps && touch $@

# pylinac needs an older pydicom than we do, so it lives apart.
.stamps/qa: constraints-qa.txt | $(UV)
	$(PYTHON) -m venv $(QA)
	$(UV) pip install --quiet --python $(QA)/bin/python -c constraints-qa.txt '$(PYLINAC)'
	@mkdir -p .stamps && touch $@

# ------------------------------------------------------------------------------------------------------ for people

demo: .stamps/demo ## pull yesterday's QA images of two simulated linacs with real Airflow
	@$(BIN)/python -m demo.run

demo-ui: .stamps/demo ## the same in Airflow's web page, for you to press Trigger
	@$(BIN)/python -m demo.ui

test: peers .stamps/develop .stamps/oldest .stamps/qa ## everything that must hold: lint, types, layers, tests, oldest Airflow, docs, wheel
	@scripts/test

test-slow: peers .stamps/develop ## the long tests, minutes to hours
	$(BIN)/python -m pytest -m slow -rP --timeout=3600

peers: ## install the DICOM peers and the browser that the tests run against (Debian, as root or with CI=true)
	@scripts/peers

bench: peers .stamps/develop ## side by side with DCMTK in one run, into docs/benchmarks.md; options in BENCH
	@$(BIN)/python -m benchmarks --docs $(BENCH)

bench-serving: peers .stamps/develop ## how fast the simulator serves, beside DCMTK's dcmqrscp, in one run
	@$(BIN)/python -m benchmarks.serving

qa: .stamps/qa ## install pylinac, which looks at the simulated QA images, apart from all else

lint: .stamps/develop ## style, types, layers
	@scripts/lint

docs: .stamps/develop ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: .stamps/develop ## build the wheel and try it in a bare venv
	@scripts/wheel

constraints: | $(UV) ## resolve the working sets again
	@scripts/constraints '$(PYLINAC)'

clean: ## remove all that make has made
	rm -rf $(VENV) $(OLDEST) $(QA) .stamps .demo .demo-ui .bench dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

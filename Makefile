# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo install test test-slow clean

install: $(VENV)/.installed

demo: $(VENV)/.installed
	@if [ -e runs/demo ]; then set -x; $(BIN)/python -m lca_keras.fit --resume runs/demo; \
	else set -x; $(BIN)/python -m lca_keras.fit --name demo --epochs 12 --warmup-epochs 4; fi

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Whole jobs of minutes, pages in a browser (where Chromium is installed), the JAX
# backend, and what needs torch (vocals, CREPE); what CI runs beside `make test`. Files
# in their order, so that the longest are not the last.
test-slow: $(VENV)/.installed-slow $(VENV)-tfx/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder -m 'slow or torch'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 13); \
	  sys.exit(0 if ok else "Python 3.11 or 3.12 is needed; found " + sys.version \
	  + ". Name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[train,runtime]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

$(VENV)/.installed-slow: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[browser,jax,vocals,crepe]"
	@touch $@

# An environment of its own for TFX, which needs Python 3.10; without one its test is
# skipped.
PYTHON310 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10*/bin/python) 3.10)
$(VENV)-tfx/.installed: setup.cfg | $(VENV)/.installed-test
	@mkdir -p $(VENV)-tfx
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON310) $(VENV)-tfx && \
	$(BIN)/uv pip install --quiet --python $(VENV)-tfx/bin/python -e ".[tfx]" || \
	  echo "no Python 3.10, or no TFX for it: its pipeline is not tested"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-tfx build *.egg-info .pytest_cache .ruff_cache

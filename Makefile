# make demo: install and run the main loop on a bundled network (under 2 minutes on 2 cores)
# make test: install and run the whole test suite
# make lint: formatting, linting, types

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(RUN)mpsearch demo

test: $(VENV)/.dev
	$(RUN)python -m pytest --numprocesses 2 --dist worksteal

lint: $(VENV)/.dev
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable '.[audio]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make demo: install and run the main loop on a bundled network (under 2 minutes on 2 cores)
# make test: install and run the whole test suite
# make lint: formatting, linting, types
# make docs: the documentation as a site in build/site, offline; any warning is an error

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/

.PHONY: demo test lint docs clean

demo: $(VENV)/.demo
	$(RUN)mpsearch demo

test: $(VENV)/.dev
	$(RUN)python -m pytest --numprocesses 2 --dist worksteal

lint: $(VENV)/.dev
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy

docs: $(VENV)/.docs
	$(RUN)python -m sphinx -q -E -W --keep-going -n -c docs . build/site

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable '.[audio]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

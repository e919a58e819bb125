# make demo: install and run the main loop on a bundled network (about 4 minutes on 2 cores)
# make test: install and run the whole test suite
# make kernels: the tests that train or sample, as two other processors would compute them
# make lint: formatting (also of C), linting, types, the order of the rooms
# make dist: what a release uploads: an sdist and a wheel in dist/, checked, and run in a bare environment
# make docs: the documentation as a site in build/site, offline; any warning is an error
# make zoo: the assignments of zoo/ anew, from the networks below MPSEARCH_DATA

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/
# The two processes of the tests would spin on each other's threads.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test kernels lint dist docs zoo clean

demo: $(VENV)/.demo
	$(RUN)mpsearch demo

# One thread for each of the two: with two each they wait for one another.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(RUN)python -m pytest --numprocesses 2 --dist worksteal

# Float sums differ in their last bits from processor to processor, and training makes that visible.
KERNELS = -m pytest --numprocesses 2 -m kernels -p no:cacheprovider -q \
	$$(grep -l 'pytest.mark.kernels' tests/test_*.py)

kernels: $(VENV)/.dev
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 \
		$(RUN)python $(KERNELS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2 OMP_NUM_THREADS=2 \
		$(RUN)python $(KERNELS)

C = $(wildcard mpsearch/*/*.[ch] mpsearch/*/*/*.[ch] mpsearch/*/*/*/*.[ch] benchmarks/*.c tests/*.[ch])

lint: $(VENV)/.dev
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports
	$(RUN)clang-format --dry-run -Werror $(C)

# The wheel is built from the sdist, so both are whole or neither.
dist: $(VENV)/.dev
	rm -rf dist build/lib build/bare
	$(RUN)python -m build --outdir dist .
	$(RUN)python .ci/check_dist.py names dist/*.whl
	$(PYTHON) -m venv build/bare
	build/bare/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	build/bare/bin/python .ci/check_dist.py works

docs: $(VENV)/.docs
	$(RUN)python -m sphinx -q -E -W --keep-going -n -c docs . build/site

zoo: $(VENV)/.dev
	$(RUN)python benchmarks/assignment_zoo.py

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

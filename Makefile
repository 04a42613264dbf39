# make run    environment, then the numbered notebooks with the quick profile: simulate, train, evaluate, classify, figures
# make test   the tests, with nbval over the notebooks, in two processes and in the order of tests/conftest.py
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The network gains nothing from more threads, and two processes with two threads each on two cores wait for one another.
export OMP_NUM_THREADS ?= 1
# Python keeps what it has compiled of a module, even where the environment forbids it: without that, each of some hundred
# processes compiles torch, scipy and pandas anew, ten seconds every time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lab bench sky choices cross figures validate clean

# Made again when the pinned versions or the dependencies change. Python compiles a module when it is first imported; most
# of them never are, so pip need not.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("microlens needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(VENV)/.complete
	$(BIN)/python -m microlens notebook all

test: $(VENV)/.complete
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not validate" \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=600 tests notebooks

validate: $(VENV)/.complete
	$(BIN)/python -m pytest -m validate tests

lab: $(VENV)/.complete
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks

bench: $(VENV)/.complete
	$(BIN)/python -m benchmarks.bench

sky: $(VENV)/.complete
	$(BIN)/python -m benchmarks.sky --baselines

choices: $(VENV)/.complete
	$(BIN)/python -m benchmarks.choices

cross: $(VENV)/.complete
	$(BIN)/python -m benchmarks.cross

figures: $(VENV)/.complete
	$(BIN)/microlens figures --redraw figures

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache data/quick data/cache runs/quick*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

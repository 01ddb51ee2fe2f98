.PHONY: setup browser demo demo-distributed docs test check bench peers adapters soak dist release-check clean
.DEFAULT_GOAL := demo

PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(wildcard ttl_plugins/*/pyproject.toml)
PLUGIN_DIRS := $(PLUGINS:/pyproject.toml=)
SETUP := .venv/.done
PEERS := .venv-peers/.done
BUILD := .venv-build/.done
BUILD_BIN := .venv-build/bin

setup: $(SETUP)  ## make .venv and install the core, the plugins and the tools into it

$(SETUP): pyproject.toml constraints.txt $(PLUGINS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt --upgrade pip hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation \
		--group dev --editable . $(addprefix --editable ./,$(PLUGIN_DIRS))
	touch $(SETUP)

browser:  ## install the browser that tests of pages run in, on Debian and Ubuntu, as root
	command -v chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

docs: $(SETUP)  ## build the documentation site into the folder `site`
	$(BIN)/sphinx-build -q --builder html docs site
	@echo "open site/index.html"

demo: $(SETUP)  ## train the example; it resumes where it was interrupted
	$(BIN)/python docs/examples/digits.py

demo-distributed: $(SETUP)  ## train the example on two processes, kill one, resume
	$(BIN)/python docs/examples/digits_distributed.py

test: $(SETUP)  ## run every test but those that other commands run
	$(BIN)/python -m pytest -q -n 2 -m "not bench and not soak and not check and not release"

check: $(SETUP)  ## lint, format, types, import contracts, documentation, wheels, examples, what `ttl new` writes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ttl_core $(addsuffix /src,$(PLUGIN_DIRS)) tests/typing benchmarks docs/_ext
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q README.md docs ttl_core ttl_plugins/*/README.md
	$(BIN)/sphinx-build -q --builder html --fail-on-warning --keep-going --fresh-env docs site
	$(BIN)/python -m pytest -q -n 2 -m check tests/integration

bench: $(SETUP)  ## measure what the loop costs, as ratios
	$(BIN)/python -m pytest -q -s -m bench tests/benchmarks

peers: $(PEERS)  ## measure ttl and other libraries side by side; write the table of docs/explanation/cost.md
	OMP_NUM_THREADS=1 .venv-peers/bin/python -m benchmarks --write

adapters: $(PEERS)  ## test ttl-adapters with Lightning, transformers and Keras
	OMP_NUM_THREADS=1 .venv-peers/bin/python -m pytest -q ttl_plugins/ttl-adapters/tests/libraries

$(PEERS): benchmarks/requirements.txt pyproject.toml constraints.txt $(PLUGINS)
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -c constraints.txt --upgrade pip hatchling editables
	.venv-peers/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation \
		-r benchmarks/requirements.txt --editable . $(addprefix --editable ./,$(PLUGIN_DIRS))
	touch $(PEERS)

soak: $(SETUP)  ## kill training a thousand times, log a million steps, resume from every safe point
	$(BIN)/python -m pytest -q -s -m soak $(addprefix ttl_plugins/,$(addsuffix /tests,\
		ttl-checkpoint ttl-compile ttl-distributed ttl-loggers))

$(BUILD): constraints.txt
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/python -m pip install --quiet -c constraints.txt --upgrade pip build hatchling
	touch $(BUILD)

dist: $(BUILD)  ## build the sdists and wheels of all distributions into dist/, without torch
	rm -rf dist
	for project in . $(PLUGIN_DIRS); do \
		$(BUILD_BIN)/python -m build --no-isolation --outdir dist $$project >/dev/null || exit 1; done

release-check: $(SETUP)  ## build those of a clean clone, check and test them; downloads gigabytes of torch
	$(BIN)/python -m pytest -q -s -m release tests/release

clean:  ## remove what make made
	rm -rf .venv .venv-peers .venv-build build dist runs site

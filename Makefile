# Two commands matter: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Extra options for pip, for example an index with CPU builds of PyTorch.
PIP_OPTIONS ?=
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint types docs lock clean

demo: $(VENV)/.installed-demo
	$(BIN)/fedmedclip demo

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Whole federations and large models: minutes each.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist load -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

ROOMS = aggregator edge_client export protocol simulation

# mypy finds packages by their folders, so it gets links under the names by which they are imported.
types:
	rm -rf build/mypy && mkdir -p build/mypy/fedmedclip
	ln -s $(CURDIR)/fedmedclip/* $(addprefix $(CURDIR)/,$(ROOMS)) build/mypy/fedmedclip/
	$(BIN)/mypy

# The documentation as a site in build/site; a link to nowhere is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Everything in docs/results, made again where code, command or data have changed since. Killed, it goes on.
#   make results ONLY=accuracy-brain,newcomer     some of it
#   make results OPTIONS=--list                   what there is, how long it takes, what is due
#   make results OPTIONS=--keep-going             after a failure go on with the others
#   make results OPTIONS=--quick                  tries the plumbing, in build/results/quick
DATA ?= ../shared/data/brain_tumor
MODEL ?= ../shared/models/bench-clip
ONLY ?=
OPTIONS ?=
results: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.results --data '$(DATA)' --model '$(MODEL)' --only '$(ONLY)' $(OPTIONS)

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e '.[$*]'
	touch $@

# Versions and hashes of a device's base installation, as an index states them now.
lock: $(VENV)/.installed-dev
	$(BIN)/python deploy/lock_requirements.py $(PIP_OPTIONS)

clean:
	rm -rf $(VENV) demo-output build *.egg-info

# Two commands matter: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Extra options for pip, for example an index with CPU builds of PyTorch.
PIP_OPTIONS ?=
BIN = $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed-demo
	$(BIN)/fedmedclip demo

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) demo-output build *.egg-info

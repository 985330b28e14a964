VENV   := .venv
PYTHON := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# nnU-Net's networks, which the zoo's tests prune; what they ask for, timm with torchvision, they do not need.
	$(PYTHON) -m pip install --quiet --no-deps dynamic-network-architectures==0.4.4
	touch $@

demo: $(STAMP)
	$(VENV)/bin/ranp demo

lint: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test: lint
	$(PYTHON) -m pytest -n 2

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache

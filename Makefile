VENV        := .venv
PYTHON      := $(VENV)/bin/python
STAMP       := $(VENV)/.installed
# Which build of torch is installed, and from where; CI replaces both.
CONSTRAINTS := constraints.txt
TORCH_INDEX :=
JOBS        := 2

.PHONY: setup demo lint test tests test-fast slow-tests test-zoo mutants fuzz docs dist clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint $(CONSTRAINTS) $(TORCH_INDEX) torch
	$(PYTHON) -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	# nnU-Net's networks, which the zoo's tests prune; its requirements, timm with torchvision, are not needed.
	$(PYTHON) -m pip install --quiet --no-deps dynamic-network-architectures==0.4.4
	touch $@

demo: $(STAMP)
	$(VENV)/bin/ranp demo

lint: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# Everything but the networks of the zoo at full size.
test: lint tests

tests: $(STAMP)
	$(PYTHON) -m pytest -n $(JOBS)

# For the inner loop: under a minute.
test-fast: $(STAMP)
	$(PYTHON) -m pytest -n $(JOBS) -m 'not slow and not zoo'

# After tests were added or changed: measure which are slow.
slow-tests: $(STAMP)
	$(PYTHON) benchmarks/slow_tests.py

# Every network of the zoo at full size: pruned, proven and trained for a step.
test-zoo: $(STAMP)
	$(PYTHON) -m pytest -n $(JOBS) -m zoo

# Do the tests notice errors? Resumes where it was interrupted.
mutants: $(STAMP)
	$(PYTHON) benchmarks/mutants.py --jobs $(JOBS)

# 10,000 random networks, about 40 minutes on two cores: pruned right or refused, and nothing else. Then 10,000 plans, weights,
# surveys and folders that were changed at random: read or refused.
fuzz: $(STAMP)
	$(PYTHON) benchmarks/random_networks.py --jobs $(JOBS)
	$(PYTHON) benchmarks/fuzz_artifacts.py

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

# Needs the packages build and twine.
dist:
	python3 -m build
	python3 -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache

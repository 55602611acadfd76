# All targets work in a fresh clone, such as `make pretrain` and `make test`. `make help` lists them.
# Choices: PYTHON=python3.12 (interpreter of the environment), TORCH=torch==2.13.0 (which torch to install),
# WORKERS=2 (test processes), ARGS=... (further arguments of pytest), FAULT_MINUTES=10 and SEED=0 (of test-faults).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
INSTALLED := $(VENV)/.installed
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
SHELL_SCRIPTS = $(shell git ls-files '*.sh' '.ci/run' 2>/dev/null)

PYTHON ?=
TORCH ?=
WORKERS ?= 2
FAULT_MINUTES ?= 10
SEED ?= 0

.PHONY: FORCE help install pretrain table test test-slurm test-nodes test-faults test-wheel test-all mutants lint docs lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## *' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt tools/setup_env.py
	@$(or $(PYTHON),python3) tools/setup_env.py $(VENV) --python "$(PYTHON)" --torch "$(TORCH)"
	@printf '%s' '$(TORCH)' >$(VENV)/.torch_asked
	@touch $@

# Another torch asked for than the environment was made with: set it up again.
ifneq ($(TORCH),)
ifneq ($(TORCH),$(shell cat $(VENV)/.torch_asked 2>/dev/null))
$(INSTALLED): FORCE
endif
endif
FORCE:

install: $(INSTALLED)  ## virtual environment in .venv with everything that the other targets need

pretrain: $(INSTALLED)  ## demo: pre-training (2 ranks, ZeRO-2), export, fine-tuning, scores, drawn relations, in 3 minutes
	@$(RUN) spe demo

table: $(INSTALLED)  ## the paper's rows in small on the demo corpus: pre-training, fine-tuning, tables and curves
	@$(RUN) spe experiments run spe_dist/experiments/files/demo.yaml

test: $(INSTALLED)  ## the tests, 10 to 13 minutes on 2 cores
	@$(RUN) python -m pytest -n $(WORKERS) -m "not slurm and not nodes and not long" $(ARGS)

test-slurm: $(INSTALLED)  ## the Slurm tests: root on a Debian machine, installs Slurm there; ARGS="-m slurm": the long ones too
	@$(RUN) python -m pytest -m "slurm and not long" $(ARGS)

test-nodes: $(INSTALLED)  ## torchrun and deepspeed on two nodes without Slurm: root, network namespaces, SSH
	@$(RUN) python -m pytest -m nodes tests/faults $(ARGS)

test-faults: $(INSTALLED)  ## kills, full disks, damaged files, cut nodes: FAULT_MINUTES=10 SEED=0; continues an earlier run
	@$(RUN) python -m tests.faults run --minutes $(FAULT_MINUTES) --seed $(SEED) $(ARGS)

test-wheel: $(INSTALLED)  ## the wheel in an empty environment: every command from a foreign folder
	@$(RUN) python -m pytest tests/installation $(ARGS)

mutants: $(INSTALLED)  ## do the tests find plausible bugs? each of tests/mutants/*.yaml in turn, outside CI
	@$(RUN) python tools/mutants.py $(ARGS)

test-all: $(INSTALLED)  ## all tests but those of Slurm and nodes, the long ones too
	@$(RUN) python -m pytest -n $(WORKERS) -m "not slurm and not nodes" $(ARGS)

lint: $(INSTALLED)  ## ruff, mypy, what may import what, shellcheck
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@if [ -n "$(SHELL_SCRIPTS)" ] && $(RUN) command -v shellcheck >/dev/null; then $(RUN) shellcheck $(SHELL_SCRIPTS); fi

docs: $(INSTALLED)  ## the documentation as a site in site/; a broken link or reference is an error
	@$(RUN) mkdocs build --strict --quiet

lock:  ## renew constraints.txt from the bounds in pyproject.toml
	@tools/lock.sh "$(or $(PYTHON),python3.11)"

clean:  ## remove the environment, caches and demo runs
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/demo runs/demo-* runs/table
	find spe_dist tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

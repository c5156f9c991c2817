# `make demo` and `make test` set up everything they need on a machine that has Python 3.10-3.14 and
# make. Variables, all optional:
#   PYTHON=python3.11    the interpreter to build the environment with (default: the first that fits)
#   VENV=.venv           where the environment goes
#   TORCH_INDEX=URL      an extra package index for torch. Without it, Linux may get the build for
#                        NVIDIA GPUs (several GB). The build for the CPU alone is at
#                        https://download.pytorch.org/whl/cpu
#   DEMO=demo            the folder that the demonstration writes
#   PROJECT=folder       a trained project of phantoms for `make screenshots`, which else trains one
#   PANEL=no             leave the tests of the panel out, where slicer-core or PySide6 have no wheels
#   JOBS=3               processes in which test files run side by side, one more than cores by default
#   PYTEST_ARGS=...      options for pytest, for example PYTEST_ARGS="-m 'not slow'"

PYTHON ?=
VENV ?= .venv
TORCH_INDEX ?=
DEMO ?= demo
PROJECT ?=
PYTEST_ARGS ?=
PANEL ?= yes
JOBS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
export SLICER_STANDIN := $(PANEL)
# Tests start hundreds of Python processes: without compiled files each compiles the library anew.
unexport PYTHONDONTWRITEBYTECODE

# The tested pair (see CONTRIBUTING.md).
TORCH := torch==2.13.0
TORCHVISION := torchvision==0.28.0

BIN := $(VENV)/bin
STAMP := $(VENV)/.aslseg-installed
PANEL_STAMP := $(VENV)/.aslseg-panel-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/pytest -q --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile
CHECKED := Logic Testing $(wildcard SlicerASLseg)

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults nightly audit lint format screenshots clean

help: ## Show this list
	@echo "SlicerASLseg: type 'make TARGET'"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(STAMP) ## Run ASLseg on a made-up data set, in less than 10 minutes on 2 cores
	@echo "==> aslseg demo $(DEMO)"
	@$(BIN)/aslseg demo "$(DEMO)"

test: lint $(PANEL_STAMP) ## Check style and types, then run all tests
	@echo "==> pytest"
	@$(PYTEST) $(PYTEST_ARGS)

faults: $(PANEL_STAMP) ## Kill it, fill the disk, damage the files: all campaigns, in full
	@echo "==> pytest Testing/faults, in full"
	@ASLSEG_FAULTS_COUNT=full $(BIN)/pytest -q -m "" Testing/faults $(PYTEST_ARGS)

nightly: $(PANEL_STAMP) ## Run the slow tests that `make test` leaves to the night
	@echo "==> pytest -m nightly"
	@$(PYTEST) -m nightly $(PYTEST_ARGS)

audit: $(STAMP) ## Look the installed packages up among the published vulnerabilities
	@echo "==> pip-audit"
	@$(PIP) "pip-audit>=2.7"
	@$(BIN)/pip-audit --skip-editable

lint: $(STAMP) ## Check style and types only
	@echo "==> ruff check"
	@$(BIN)/ruff check $(CHECKED)
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check $(CHECKED)
	@echo "==> mypy --strict"
	@$(BIN)/mypy

format: $(STAMP) ## Write all files in the project's style
	@$(BIN)/ruff check --fix $(CHECKED)
	@$(BIN)/ruff format $(CHECKED)

setup: $(STAMP) $(PANEL_STAMP) ## Make or renew the environment only

screenshots: $(PANEL_STAMP) ## Take the pictures of tutorial and panel again
	@echo "==> taking the pictures of Docs/screenshots"
	@for script in tutorial lesion_series widths; do \
		$(BIN)/python Testing/pictures/$$script.py Docs/screenshots $(if $(PROJECT),--project "$(PROJECT)") || exit 1; \
	done

clean: ## Remove the environment, the demonstration and what the tools left
	@echo "==> removing $(VENV), $(DEMO) and the tools' caches"
	@rm -rf "$(VENV)" "$(DEMO)" build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	@find Logic Testing -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf Logic/*.egg-info

# Some systems keep stand-ins for Pythons that are not there, so each candidate is made to run.
$(BIN)/python:
	@fits='import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.10 python3.14 python); do \
		if "$$python" -c "$$fits" >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python from 3.10 to 3.14 with its venv module was found$(if $(PYTHON), as '$(PYTHON)')." >&2; \
		echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	echo "==> making the environment $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv "$(VENV)"

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "==> installing $(TORCH) (the longest step; once)"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	@echo "==> installing $(TORCHVISION)"
	@$(PIP) --no-deps "$(TORCHVISION)"
	@echo "==> installing aslseg and its tools"
	@$(PIP) --editable ".[dev,npm]"
	@touch $@
	@echo "==> the environment $(VENV) is ready"

# Continuous integration stops without these; elsewhere the tests of the panel are skipped.
$(PANEL_STAMP): $(STAMP)
ifneq ($(PANEL),no)
	@echo "==> installing the stand-in for Slicer"
	@$(PIP) --editable ".[dev,npm,panel]" || { \
		echo "==> PySide6 or slicer-core cannot be installed here$(if $(CI),; PANEL=no leaves the tests of the panel out,: tests of the panel will be skipped)" >&2; \
		test -z "$(CI)"; \
	}
	@touch $@
endif

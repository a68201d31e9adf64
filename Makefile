# `make demo` and `make test` need only Python 3.11 to 3.13 and make; they set up .venv.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
# Digests of the inputs of .venv: new pins recreate it; a new [project] or [build-system] installs nrcg again.
DIGESTS := $(shell $(firstword $(wildcard $(VENV)/bin/python) $(PYTHON)) -c 'import hashlib, json, tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb")); \
	parts = [open("requirements.lock").read(), project["project"], project["build-system"]]; \
	print(*(hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:12] for part in (parts[0], parts)))')
PACKAGES := $(VENV)/.packages-$(word 1,$(DIGESTS))
READY := $(VENV)/.ready-$(word 2,$(DIGESTS))
IN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
CORES ?= 2
DRY := snakemake -n --forceall --cores 16
REPORT := --report-metadata workflow/report/landing.yaml --report-stylesheet workflow/report/report.css # opens on the findings

.PHONY: help env demo demo-from-scratch plan test test-fast lint docs format lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

env: $(READY) ## set up .venv with the pinned packages

$(PACKAGES):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; install one, or run make PYTHON=/path/to/python"; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON): takes some minutes and 5 GB, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m compileall -j 0 $(VENV)/lib 2>&1 | $(VENV)/bin/tqdm --desc Compiling --unit " lines" >/dev/null
	@touch $@

$(READY): $(PACKAGES)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . \
		--config-settings editable_mode=compat # else a script beside a clone would import its folder as an empty package
	@touch $@

demo: $(READY) ## SportBalls at 32×32 on two CPU cores, with the shipped networks (about seven minutes)
	@$(IN) nrcg warm snakemake --cores $(CORES) --quiet rules --configfile config/demo.yaml
	@$(IN) snakemake --configfile config/demo.yaml --report results/demo/report.html $(REPORT)
	@echo
	@echo "Figures:  results/demo/sportballs/figures/"
	@echo "Findings: results/demo/sportballs/figures/findings.html"
	@echo "Report:   results/demo/report.html"

demo-from-scratch: $(READY) ## the demo with training of all networks (about an hour and a half)
	@$(IN) nrcg warm snakemake --cores $(CORES) --quiet rules --configfile config/demo.yaml config/demo_from_scratch.yaml
	@$(IN) snakemake --configfile config/demo.yaml config/demo_from_scratch.yaml --report results/demo-from-scratch/report.html $(REPORT)
	@echo "Report: results/demo-from-scratch/report.html"

plan: $(READY) ## estimated GPU hours of the whole paper: its own protocol, and config/fast.yaml
	@mkdir -p build/plan
	@$(IN) $(DRY) >build/plan/protocol
	@$(IN) $(DRY) find_scales --configfile config/fast.yaml config/fast_search.yaml >build/plan/search
	@$(IN) $(DRY) --configfile config/fast.yaml >build/plan/samples
	@$(IN) nrcg plan --rates config/rates.tsv \
		protocol=build/plan/protocol fast=build/plan/search fast=build/plan/samples

test: $(READY) ## all tests (about fifteen minutes on two cores)
	@$(IN) python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder --durations=8

test-fast: $(READY) ## the fast tests (under two minutes on two cores)
	@$(IN) python -m pytest -n $(CORES) --dist loadfile -m fast

lint: $(READY) ## ruff, snakefmt, snakemake --lint, mypy, codespell
	@$(IN) ruff check .
	@$(IN) ruff format --check .
	@$(IN) snakefmt --check Snakefile workflow
	@$(IN) snakemake --lint
	@$(IN) mypy $(wildcard nrcg benchmarks experiments)
	@$(IN) codespell

docs: $(READY) ## the documentation site, in site/; a dead link or any other warning fails
	@$(IN) NO_MKDOCS_2_WARNING=1 mkdocs build
	@echo "Start with site/index.html"

format: $(READY) ## ruff format, snakefmt
	@$(IN) ruff check --fix .
	@$(IN) ruff format .
	@$(IN) snakefmt Snakefile workflow

lock: $(READY) ## update requirements.lock and the conda environments from pyproject.toml
	@$(VENV)/bin/python -m pip install --quiet uv
	@$(IN) uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade --output-file requirements.lock
	@$(IN) python tests/environment_yml.py

clean: ## remove .venv and Snakemake's files; keep results
	@rm -rf $(VENV) .snakemake build site *.egg-info

# `make demo` and `make test` need nothing but Python 3.11 or 3.12 and make; they set up .venv themselves.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
READY := $(VENV)/.ready
IN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
CORES ?= 2

.PHONY: help env demo demo-from-scratch test lint format lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

env: $(READY) ## set up .venv with the pinned packages

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one, or say make PYTHON=/path/to/python"; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON): some minutes and 5 GB, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(VENV)/bin/python -m compileall -j 0 $(VENV)/lib 2>&1 | $(VENV)/bin/tqdm --desc Compiling --unit " lines" >/dev/null
	@touch $@

demo: $(READY) ## SportBalls at 32×32 on two CPU cores, with the shipped DDPM (about ten minutes)
	@$(IN) snakemake --cores $(CORES) --quiet rules --configfile config/demo.yaml
	@$(IN) snakemake --configfile config/demo.yaml --report results/demo/report.html
	@echo
	@echo "Figures:  results/demo/sportballs/figures/"
	@echo "Findings: results/demo/sportballs/figures/findings.html"
	@echo "Report:   results/demo/report.html"

demo-from-scratch: $(READY) ## the same, its DDPM trained too (half an hour to an hour more)
	@$(IN) snakemake --cores $(CORES) --quiet rules --configfile config/demo.yaml config/demo_from_scratch.yaml
	@$(IN) snakemake --configfile config/demo.yaml config/demo_from_scratch.yaml --report results/demo-from-scratch/report.html
	@echo "Report: results/demo-from-scratch/report.html"

test: $(READY) ## all tests (some fifteen minutes on two cores)
	@$(IN) python -m pytest -n $(CORES) --dist loadfile --durations=8

lint: $(READY) ## ruff, snakefmt, snakemake --lint
	@$(IN) ruff check .
	@$(IN) ruff format --check .
	@$(IN) snakefmt --check Snakefile workflow/rules
	@$(IN) python tests/lint_workflow.py

format: $(READY) ## ruff format, snakefmt
	@$(IN) ruff check --fix .
	@$(IN) ruff format .
	@$(IN) snakefmt Snakefile workflow/rules

lock: $(READY) ## renew requirements.lock and environment.yml from pyproject.toml
	@$(VENV)/bin/python -m pip install --quiet uv
	@$(IN) uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade --output-file requirements.lock
	@$(IN) python tests/environment_yml.py > environment.yml

clean: ## remove .venv and Snakemake's own files; results stay
	@rm -rf $(VENV) .snakemake build *.egg-info

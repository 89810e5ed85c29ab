# Two commands from a fresh clone, with only python3 and make:
#     make live     install into .venv and play
#     make test     install what development needs, check, run the tests
# ARGS go to demon: make live ARGS="patterns/02_blend.demon --audio null"
# DEMON_TORCH names another torch: make live DEMON_TORCH="torch==2.13.0"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
DEMON_TORCH ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH_CPU := --index-url https://download.pytorch.org/whl/cpu
# The torch of our own machines: a CPU build in a local folder that pip knows.
TORCH_LOCAL := $(PIP) install --no-index --no-deps --constraint .ci/constraints.txt torch

.PHONY: live test check venv dev soak chaos fuzz audit
.DELETE_ON_ERROR:

live: $(VENV)/.installed $(VENV)/.portaudio
	@exec $(BIN)/demon live $(ARGS)

test: check
	$(BIN)/python -m pytest

# What must hold for an hour, with JSON reports; ARGS go to the rig: make soak ARGS="--minutes 5".
# Their short forms are part of `make test`.
soak: $(VENV)/.dev
	$(BIN)/python -m tests.rigs.soak $(ARGS)

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.rigs.chaos $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.rigs.fuzz $(ARGS)

# Known holes in what is installed; asks PyPI's advisory service, so it is no part of `make test`.
audit: $(VENV)/.dev
	$(PIP) install pip-audit
	$(BIN)/python -m tests.rigs.audit $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

venv: $(VENV)/.installed
dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "demon needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "python3 -m venv failed; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }

# torch comes first, on its own: left to the resolver, Linux gets gigabytes of CUDA libraries that a
# machine without an NVIDIA GPU cannot use.
$(VENV)/.torch: | $(BIN)/python
	@echo "installing torch (once)"
	@if [ -n "$(DEMON_TORCH)" ]; then $(PIP) install "$(DEMON_TORCH)"; \
	elif $(BIN)/python -c 'import torch' 2>/dev/null; then :; \
	elif $(TORCH_LOCAL) 2>/dev/null; then :; \
	elif [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	    $(PIP) install $(TORCH_CPU) torch || $(PIP) install torch; \
	else $(PIP) install torch; fi
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.torch
	@echo "installing demon into $(VENV)"
	@$(PIP) install --editable .
	@touch $@
	@echo "installed: $(BIN)/demon, or with 'source $(BIN)/activate' just demon"

$(VENV)/.dev: pyproject.toml | $(VENV)/.torch
	@echo "installing demon and its development tools into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

# Asked until it is there, then never again.
$(VENV)/.portaudio: | $(VENV)/.installed
	@if $(BIN)/python -c 'import sounddevice' 2>/dev/null; then touch $@; else \
	    echo "PortAudio is missing, so the speakers stay silent. Install it with:"; \
	    echo "    Debian, Ubuntu: sudo apt install libportaudio2    Fedora: sudo dnf install portaudio"; \
	    echo "    Arch: sudo pacman -S portaudio                    macOS, Windows: it comes with pip"; fi

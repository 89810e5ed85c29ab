# Two commands from a fresh clone, with only python3 and make:
#     make live     install into .venv and play
#     make test     install what development needs, check, run the tests
# More, into the same .venv:
#     make extras    OSC, the web page, MIDI and Link; or one of them: make osc
#     make gpu       ACE-Step, and a torch that knows an NVIDIA GPU
# ARGS go to demon: make live ARGS="patterns/02_blend.demon --audio null"
# DEMON_TORCH names another torch: make live DEMON_TORCH="torch==2.13.0"
# All packages but torch have the versions and hashes of .ci/*.lock; `make lock` takes newer ones.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
DEMON_TORCH ?=
PYTHONS ?= python3.11 python3.12 python3.13 python3.14

BIN := $(VENV)/bin
# LOUD shows what is downloaded, its size and how far it is.
LOUD := $(BIN)/python -m pip --disable-pip-version-check
PIP := $(LOUD) --quiet
# The extras of pyproject.toml, each a target.
EXTRAS := osc web midi link lsp mcp ray ace tensorrt rtx
TORCH_CPU := --index-url https://download.pytorch.org/whl/cpu
# The torch of our own machines: a CPU build in a local folder that pip knows.
TORCH_LOCAL := $(PIP) install --no-index --no-deps --constraint .ci/constraints.txt torch
LOCKED := $(PIP) install --no-deps --require-hashes --requirement
EDITABLE := $(PIP) install --no-deps --no-build-isolation --editable .
EXTRA := $(LOUD) install --no-build-isolation --editable
# One lock for all systems and Pythons. torch is left out: which build is right depends on the GPU.
LOCK := $(BIN)/python -m uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-annotate --custom-compile-command "make lock" \
    --override .ci/no-torch.txt --no-emit-package torch

HAS_CUDA := $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'

.PHONY: gpu live test check venv dev soak chaos fuzz audit lock pythons extras $(EXTRAS)
.DELETE_ON_ERROR:

live: $(VENV)/.installed $(VENV)/.portaudio
	@if [ -e $(VENV)/.played ]; then exec $(BIN)/demon live $(ARGS); fi; \
	$(BIN)/demon live $(ARGS); ended=$$?; touch $(VENV)/.played; \
	echo "from now on: make live, or $(BIN)/demon live;" \
	    "after 'source $(BIN)/activate' just demon live"; exit $$ended

test: check
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

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

# Newer versions of the packages into .ci/*.lock.
lock: | $(BIN)/python
	$(PIP) install uv
	$(LOCK) --extra dev --no-emit-package python-rtmidi --output-file .ci/dev.lock pyproject.toml .ci/lock.in
	$(LOCK) --constraint .ci/dev.lock --output-file .ci/live.lock pyproject.toml .ci/lock.in
	echo 'python-rtmidi>=1.5' | $(LOCK) --output-file .ci/midi.lock -

# `make test` with each Python that is installed here.
pythons:
	@failed=; for python in $(PYTHONS); do \
	    if ! $$python -c '' 2>/dev/null; then echo "$$python: not here"; continue; fi; \
	    echo "$$python:"; \
	    $(MAKE) test PYTHON=$$python VENV=.venv-$$(basename $$python) || failed="$$failed $$python"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

extras: $(VENV)/.installed
	@$(EXTRA) '.[osc,web,midi,link]'

$(EXTRAS): $(VENV)/.installed
	@$(EXTRA) '.[$@]'

# ACE-Step on an NVIDIA GPU: PyPI's torch for Linux, which has CUDA, in the place of one without; then
# the extra.
gpu: $(VENV)/.installed
	@if [ -n "$(DEMON_TORCH)" ]; then $(LOUD) install "$(DEMON_TORCH)"; \
	elif ! $(HAS_CUDA); then \
	    echo "installing torch with CUDA: gigabytes to download"; \
	    $(LOUD) install --force-reinstall torch; fi
	@$(EXTRA) '.[ace]'
	@$(HAS_CUDA) || echo "this torch knows no GPU: name one, such as make gpu DEMON_TORCH=torch==2.13.0"

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
	@echo "installing torch, once: about 200 MB to download without CUDA, gigabytes with it"
	@if [ -n "$(DEMON_TORCH)" ]; then $(LOUD) install "$(DEMON_TORCH)"; \
	elif $(BIN)/python -c 'import torch' 2>/dev/null; then :; \
	elif $(TORCH_LOCAL) 2>/dev/null; then :; \
	elif [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	    $(LOUD) install $(TORCH_CPU) torch || $(LOUD) install torch; \
	else $(LOUD) install torch; fi
	@touch $@

$(VENV)/.installed: pyproject.toml .ci/live.lock | $(VENV)/.torch
	@echo "installing demon into $(VENV), which will have about 1.2 GB"
	@$(LOUD) install --no-deps --require-hashes --requirement .ci/live.lock
	@$(EDITABLE)
	@touch $@
	@echo "installed: $(BIN)/demon, or with 'source $(BIN)/activate' just demon"

# python-rtmidi has no wheel for some Pythons, and then needs a compiler and headers.
$(VENV)/.dev: pyproject.toml .ci/dev.lock .ci/midi.lock | $(VENV)/.torch
	@echo "installing demon and its development tools into $(VENV)"
	@$(LOCKED) .ci/dev.lock
	@$(LOCKED) .ci/midi.lock >/dev/null 2>&1 || \
	    echo "python-rtmidi cannot be installed here, so its tests are skipped (it has no wheel for this" \
	    "Python: sudo apt install g++ libasound2-dev libjack-dev)"
	@$(EDITABLE)
	@touch $(VENV)/.installed $@

# Asked until it is there, then never again.
$(VENV)/.portaudio: | $(VENV)/.installed
	@if $(BIN)/python -c 'import sounddevice' 2>/dev/null; then touch $@; else \
	    echo "PortAudio is missing, so the speakers stay silent. Install it with:"; \
	    echo "    Debian, Ubuntu: sudo apt install libportaudio2    Fedora: sudo dnf install portaudio"; \
	    echo "    Arch: sudo pacman -S portaudio                    macOS, Windows: it comes with pip"; fi

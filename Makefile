# `make demo` and `make test` do all the set-up on a fresh machine; PYTHON picks the interpreter (3.11 to 3.13), WORKERS how many
# processes test at a time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
NATIVE := sparsec/kernels/native

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow sanitize neon native peers bench lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml build_backend/sparsec_build.py $(wildcard $(NATIVE)/*.c $(NATIVE)/*.h) $(NATIVE)/CMakeLists.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(READY)  ## train, prune, compile, verify and measure two networks on real digits; results in build/demo
	$(BIN)/sparsec demo -o build/demo

lint: $(READY)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## lint, then every test that is quick
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

test-slow: $(READY)  ## the long proofs
	$(BIN)/python -m pytest -m slow --numprocesses $(WORKERS)

sanitize: $(READY)  ## native kernels and models under the address and undefined-behaviour sanitizers
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_sanitizers.py

neon: $(READY)  ## the native kernels for aarch64 on an emulated processor, with the emulator of Debian's package qemu-user
	command -v qemu-aarch64 || command -v qemu-aarch64-static || { echo "install the Debian package qemu-user"; exit 1; }
	command -v aarch64-linux-gnu-gcc || $(BIN)/python -m pip install --quiet --disable-pip-version-check ziglang
	$(BIN)/python -m pytest -k neon tests/test_neon.py $(wildcard tests/test_native*.py)

native:  ## build the native library among the sources, for a checkout that is not installed
	cmake -S $(NATIVE) -B $(NATIVE)
	cmake --build $(NATIVE)

peers: $(READY)  ## environments for engines that `make bench` compares with, and that need one of their own
	$(BIN)/python benchmarks/peers/environments.py

bench: $(READY)  ## the benchmarks; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist
	find $(NATIVE) -mindepth 1 -maxdepth 1 ! -name '*.[ch]' ! -name CMakeLists.txt -exec rm -rf {} +

# Everything runs in the project's own .venv; a machine needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install test lint types unit test-long demo bench clean

help:
	@echo "make test       lint, types and the default tests (under 5 minutes on two cores)"
	@echo "make test-long  the tests marked long (twenty kills, a table, a thousand scenes)"
	@echo "make demo       a driving world, a teacher, distilled students, a report: 10 minutes on two cores"
	@echo "make bench      what docs/performance.md says of speed, measured here: 30 minutes of one core"
	@echo "make clean      remove .venv, caches and demo output"

install: .venv/installed

# torch is named, so that pip takes this release and not a newer one with gigabytes of CUDA packages.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0" -e ".[dev]"
	touch $@

test: lint types unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

unit: install
	$(BIN)/pytest -n 2 --dist loadfile

test-long: install
	$(BIN)/pytest -m long

demo: install
	$(BIN)/drivedistill quickstart

# One after the other, so that nothing disturbs them. The scripts that measure quality, and the world's, are run by hand.
MEASURE := OMP_NUM_THREADS=1 $(BIN)/python benchmarks
bench: install
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[peers]"
	$(MEASURE)/decode.py --rounds 5 --out benchmarks/decode.json
	$(MEASURE)/losses.py --rounds 1 --out benchmarks/losses.json
	$(MEASURE)/trl_peer.py --out benchmarks/trl_peer.json
	$(MEASURE)/caches.py --rounds 3 --out benchmarks/caches.json
	$(MEASURE)/curves.py --out benchmarks/curves.json
	$(MEASURE)/experts.py --out benchmarks/experts.json
	$(MEASURE)/mining.py --out benchmarks/mining.json
	$(MEASURE)/vision_cache.py --out benchmarks/vision_cache.json
	$(MEASURE)/pictures.py --out benchmarks/pictures.json
	$(MEASURE)/batches.py --out benchmarks/batches.json
	$(MEASURE)/preflight.py --rounds 1 --steps 80 --out benchmarks/preflight.json

clean:
	rm -rf .venv demo quickstart .mypy_cache .ruff_cache .pytest_cache .hypothesis

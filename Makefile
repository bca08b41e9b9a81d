# Works with GNU make 3.81 and any POSIX sh. `make help` lists what there is.

PYTHON  := .venv/bin/python
ARGS    :=
SECONDS := 120

# What another project's active environment says is not about us. Without compiled modules each of the many
# processes of the tests would compile them anew.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

.PHONY: help demo test bench fuzz long simulate lint lock clean setup

help:
	@echo 'make demo    run the main job end to end, show it, clean up'
	@echo 'make test    run every test                (make test ARGS="-k ledger" for some)'
	@echo 'make bench   measure: one JSON line per figure'
	@echo 'make long    the proofs that take long, a quarter of an hour: 100 random kills over 300 processes,'
	@echo '             200 over 400 workflows, 100 of a subscriber, slow waits'
	@echo 'make fuzz    look for bytes that break a reader (make fuzz SECONDS=600; Linux only)'
	@echo 'make simulate a million simulated lifetimes   (make simulate SEEDS=5000 FROM=0 for some)'
	@echo 'make lint    format, then lint, types and import direction'
	@echo 'make lock    pin the newest versions that pyproject.toml allows'
	@echo 'make clean   remove what the others made'
	@echo 'Each sets up .venv first if it is missing or old.'

demo: setup
	@$(PYTHON) examples/demo.py $(ARGS)

# Most tests wait for something, so more of them at a time than there are processors.
test: setup
	@$(PYTHON) -m pytest -n 4 --dist loadfile $(ARGS)

bench: setup
	@$(PYTHON) -m tests.benchmarks $(ARGS)

fuzz: setup
	@sh deploy/setup-fuzz.sh
	@$(PYTHON) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

long: setup
	@CHAOS_KILLS=100 CHAOS_PROCESSES=300 $(PYTHON) -m pytest -m 'long or not long' \
	    tests/acceptance/test_chaos.py tests/acceptance/test_orchestrator.py $(ARGS)
	@CHAOS_KILLS=200 CHAOS_WORKFLOWS=400 CHAOS_WAIT_S=600 $(PYTHON) -m pytest -s \
	    tests/acceptance/test_workflow_chaos.py $(ARGS)
	@FEED_KILLS=100 $(PYTHON) -m pytest -s tests/acceptance/test_feed.py $(ARGS)

SEEDS := 1000000
FROM  := 0

simulate: setup
	@$(PYTHON) -m tests.simulator --seeds $(SEEDS) --from $(FROM) $(ARGS)

lint: setup
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports

# One answer for every platform and Python that we support; no line of it names a host.
lock:
	@command -v uv >/dev/null || { echo 'make lock needs uv: pipx install uv' >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --group dev --output-file requirements.txt pyproject.toml
	@echo 'requirements.txt is new: run make test, then commit it.'

clean:
	@rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Asks nothing and costs nothing when .venv is as it should be.
setup:
	@sh deploy/setup-venv.sh

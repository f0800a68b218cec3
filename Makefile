# Every target sets up what is missing first. ARGS goes to the command: make demo ARGS='--connections 500'
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test bench figures gradescope check lock clean

ARGS ?=
python := .venv/bin/python
caches := .pytest_cache .mypy_cache .ruff_cache .hypothesis

help:  ## Show what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup:  ## Install what is missing: Debian packages, Python packages, the command maglab
	@lab/setup/provision

demo:  ## Run the demonstration: a data centre that survives its load balancers dying (root)
	@lab/setup/provision --for=lab
	@.venv/bin/maglab demo $(ARGS)

test:  ## Run all tests, or with ARGS what pytest is told (root)
	@lab/setup/provision --for=lab
ifneq ($(strip $(ARGS)),)
	@$(python) -m pytest $(ARGS)
else
	@failed=0; \
	$(python) -m pytest -n 2 tests/unit tests/paper || failed=1; \
	$(python) -m pytest -n 2 --dist loadfile -m 'not alone' tests/emulation || failed=1; \
	$(python) -m pytest -m alone tests/emulation || failed=1; \
	exit $$failed
endif

bench:  ## Measure speed, next to what C, XDP and DPDK can do on this machine (root)
	@lab/setup/provision --for=bench
	@.venv/bin/maglab bench $(ARGS)

figures:  ## Measure the paper's figures about lookup tables again, into figures/ (no root; minutes)
	@lab/setup/provision --for=check
	@.venv/bin/maglab figures --out figures $(ARGS)

gradescope:  ## Pack an autograder for Gradescope: ARGS='--exercise 3' (no root)
	@lab/setup/provision --for=check
	@$(python) -m lab.classroom.gradescope.pack $(ARGS)

check:  ## Lint, check types, run the unit and paper tests (no root)
	@lab/setup/provision --for=check
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -m pytest -q tests/unit tests/paper $(ARGS)
	@if [ -n "$$(command -v vagrant)" ]; then echo 'vagrant validate --ignore-provider'; vagrant validate --ignore-provider; \
	else echo 'vagrant validate: skipped, since vagrant is not installed'; fi

lock:  ## Write lab/setup/requirements.lock anew, with the newest versions
	@lab/setup/lock

clean:  ## Remove the virtual environment and all caches
	@rm -rf .venv .venv-ryu $(caches)
	@find maglev lab topologies exercises tests -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

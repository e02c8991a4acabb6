# What can be done here; `make` alone lists it.
# Every target installs what it needs, or says in one line what is missing.
PARTS := tests/services/services.sh
KUBE := tests/services/kube.sh
CACHE := $${WINDROW_PARTS:-$$HOME/.cache/windrow-parts}
# The charm is always built by itself: in one build with the program, its dependencies would change
# the features of those that both have, and what `make demo` has built would be built once more.

help: ## This list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: tools ## Kafka, producer, windrow and a table in one process, for 30 s; ARGS='--for 10s'
	cargo run -- demo $(ARGS)

test: test-fast test-mutations test-real test-pack test-kube test-juju ## All but test-deploy, test-memory

test-fast: lint ## All that needs no Java: lints, unit tests, golden texts, the simulation
	cargo test -p windrow -p windrow-core
	cargo test -p windrow-charm
	tests/fuzz/run.sh 10

fuzz: tools ## Makes up bytes for each parser of outside bytes, ten minutes each (FUZZ='60 time')
	tests/fuzz/run.sh $${FUZZ:-600}

test-mutations: ## Mistakes planted in a copy of the engine: which seeds of the simulation catch them
	cargo test -p windrow-core --test sim -- --ignored --nocapture --test-threads=1 \
	  every_mutation_of_the_engine_is_caught how_often_planted_mistakes_are_caught

test-real: tools ## With real Kafka, MinIO and PostgreSQL; Spark reads the table and is the judge
	$(PARTS) install kafka minio postgres spark spark-3.5
	cargo test --no-run
	$(PARTS) up kafka minio minio-tls postgres
	eval "$$($(PARTS) env)" && \
	  cargo test --no-fail-fast -- --ignored --test-threads=2 --skip ten_million --skip a_year_of_commits

test-memory: tools ## Ten million records, S3 and PostgreSQL away for 5 minutes each: 20 minutes
	$(PARTS) install kafka minio postgres spark
	cargo test --release --test real --no-run
	$(PARTS) up kafka minio minio-tls postgres
	eval "$$($(PARTS) env)" && \
	  cargo test --release --test real -- --ignored --nocapture ten_million

year: tools ## A year of commits in simulated time, and a picture of it: an hour (DAYS=30 for a part)
	$(PARTS) install minio postgres spark
	cargo test --release --test real --no-run
	$(PARTS) up minio postgres
	eval "$$($(PARTS) env)" && WINDROW_YEAR_DAYS=$${DAYS:-365} \
	  cargo test --release --test real -- --ignored --nocapture a_year_of_commits

# The scripts of this target and the next two exit with 3 where what they need cannot be had.
test-juju: tools ## The charm under Juju's own hook runner and a real Pebble, where they can be had
	cargo build --bins
	cargo build -p windrow-charm --bins
	@if tests/hook-runner/play_scenarios.py; then \
	  WINDROW_PEBBLE_DIR=$(CACHE)/hook-runner \
	    cargo test -p windrow-charm --lib pebble:: -- --ignored; \
	  else [ $$? = 3 ]; fi

test-kube: tools ## The charm's question to a real kube-apiserver, where it can be had
	@if $(KUBE) up; then \
	  eval "$$($(KUBE) env)" && cargo test -p windrow-charm --lib a_real_kube -- --ignored; \
	  rc=$$?; $(KUBE) down; exit $$rc; else [ $$? = 3 ]; fi

test-deploy: pack ## The use case on a real Juju, some 15 minutes; WINDROW_CONTROLLER=NAME: on yours
	@tests/juju/deploy.py || [ $$? = 3 ]

lint: tools ## Formatting, clippy, and the licenses of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@tests/deny.sh

parts-up: ## Start Kafka, MinIO and PostgreSQL, to try things by hand
	$(PARTS) install kafka minio postgres
	$(PARTS) up
	@echo 'for their addresses and credentials: eval "$$($(PARTS) env)"'

parts-down: ## Stop them
	$(PARTS) down

pack: tools ## The charm, windrow-k8s_amd64.charm, for Ubuntu 22.04 and later; without LXD
	charm/pack.py

test-pack: pack ## What is in the charm's file, as Juju, charmcraft and a bare Ubuntu see it
	tests/pack/check.py

tools:
	@tests/tools.sh

.PHONY: help demo fuzz test test-fast test-mutations test-real test-memory test-juju test-kube
.PHONY: year test-deploy lint parts-up parts-down pack test-pack tools

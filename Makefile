# The two commands of the README, and what maintainers need. Every target says what it does and is quiet about the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=PATH,HOME,XDG_DATA_HOME)
BIN := target/release/bakehouse
# Where the images of `make bake` go: the local cloud's store.
STORE ?= $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/bakehouse
QUICKSTART := examples/quickstart

.PHONY: help bake test bench bench-ebs build provisioner image live packages lint schema fuzz

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

bake: packages build ## bake examples/quickstart on this machine and boot the result
	@echo "==> os-base: Debian from its packages (about two minutes; later runs find it unchanged)"
	@$(SUDO) $(BIN) --quiet bake --local="$(STORE)" $(QUICKSTART)/os-base >/dev/null
	@echo "==> web: nginx on top of it, only the changed blocks stored"
	@$(SUDO) $(BIN) --quiet bake --local="$(STORE)" --fresh $(QUICKSTART)/web >/dev/null
	@echo "==> checking and booting it (one to three minutes without KVM)"
	@$(SUDO) $(BIN) --quiet test --local="$(STORE)" $(QUICKSTART)/web/bakehouse-out/image.json
	@echo
	@echo "Baked, checked and booted: $$(. $(QUICKSTART)/web/bakehouse-out/bakehouse.env; echo "$$AMI_NAME ($$AMI_ID)")"
	@echo "  record   $(QUICKSTART)/web/bakehouse-out/image.json"
	@echo "  next     $(strip $(SUDO) $(BIN)) boot --local="$(STORE)" $$(. $(QUICKSTART)/web/bakehouse-out/bakehouse.env; echo "$$AMI_ID")"

build: ## build the local-only binary (no AWS SDK)
	@echo "==> building $(BIN)"
	@command -v cargo >/dev/null || { echo "error: cargo is not installed; install Rust (https://rustup.rs)" >&2; exit 1; }
	@cargo build --release --no-default-features --quiet

image: ## build the container image by docker or buildah (TARGET=bakehouse, ansible or qemu): fifteen minutes, most of it the SDK
	@scripts/image --target "$(or $(TARGET),bakehouse)"

provisioner: ## build the program that the method launch brings to instances (static)
	@scripts/provisioner $(ARCHITECTURES)

live: ## try it in a real AWS account (BASE=ami-… or a parameter): says what that makes and costs, asks, cleans up
	@echo "==> building bakehouse with the AWS SDK (the first time ten minutes)" >&2
	@cargo build --release --locked --quiet --bin bakehouse --example live
	@$(if $(SUDO),sudo --preserve-env) target/release/examples/live

packages: ## install the system packages that bakes and tests need
	@scripts/install-packages

test: packages ## install what the tests need and run all of them
	@scripts/test

bench: packages ## measure bakes against their limits: a table (about six minutes; needs 25 GB of disk)
	@cargo build --profile bench --no-default-features --bench speed --quiet
	@$(SUDO) $$(which cargo) bench --no-default-features --quiet --bench speed -- $(BENCH)

# coldsnap's EC2 crate is not optimised, which would take ten minutes: it is called once, to wait.
bench-ebs: ## measure blocks and a bake beside coldsnap: a table (eight minutes, as root; the first time it compiles both for long)
	@echo "==> building bakehouse with the AWS SDK, coldsnap and the measurement"
	@cargo build --release --quiet --target-dir target/aws
	@cargo install coldsnap --locked --quiet --root target/coldsnap --target-dir target/coldsnap/build \
		--config 'profile.release.package.aws-sdk-ec2.opt-level=0' --config 'profile.release.package.aws-sdk-sts.opt-level=0'
	@cargo build --release --quiet --manifest-path benches/ebs/Cargo.toml --target-dir target/ebs-bench
	@target/ebs-bench/release/ebs-bench --bakehouse target/aws/release/bakehouse --coldsnap target/coldsnap/bin/coldsnap \
		--folder target/tmp $(BENCH)

lint: ## formatting and lints, both feature sets
	@cargo fmt --check
	@cargo clippy --quiet --no-default-features --all-targets -- -D warnings
	@cargo clippy --quiet --all-targets -- -D warnings

schema: ## write docs/bake.schema.json and the tests' snapshots anew
	@BAKEHOUSE_UPDATE=1 INSTA_UPDATE=always cargo test --quiet --no-default-features --test bakehouse -- recipes:: buildspecs::

fuzz: ## try hostile input for long: TARGET=recipe (or all of them), SECONDS=60 each
	@scripts/fuzz "$(TARGET)" "$(or $(SECONDS),60)"

# Tripod is built and tested by plain Go; this file names the steps. Start with
# "make help".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A checkout may belong to another user, which makes git refuse to be asked;
# the version is stamped below instead.
export GOFLAGS := $(if $(findstring -buildvcs,$(GOFLAGS)),$(GOFLAGS),$(strip $(GOFLAGS) -buildvcs=false))

VERSION := $(shell git -c safe.directory='*' describe --always --dirty 2>/dev/null || echo dev)
TOOLS   := .cache/tools
STAMP   := $(TOOLS)/.built-$(shell go env GOVERSION)
SUMMARY := .cache/summary

# What the browser needs of core; see internal/lint/tables_test.go.
WASM := $(addprefix ./internal/core/,tripod frame seal tree snapshot)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done

.PHONY: build
build: ## build bin/tripod, static and reproducible
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -pgo=cmd/tripod/release.pgo -ldflags "-s -w -X main.version=$(VERSION)" -o bin/tripod ./cmd/tripod

.PHONY: check
check: tools format lint quick cross ## before every commit: format, lint, quick tests, other systems (under 2 minutes)

.PHONY: format
format: tools ## tell which files gofumpt would change
	@bad=$$($(TOOLS)/gofumpt -l cmd internal tools $(wildcard test web)); if [ -n "$$bad" ]; then printf 'not formatted (make fmt does it):\n%s\n' "$$bad"; exit 1; fi

.PHONY: fmt
fmt: tools ## format all Go files
	$(TOOLS)/gofumpt -w cmd internal tools $(wildcard test web)

.PHONY: lint
lint: tools ## vet, staticcheck, errcheck and the rules of the house
	@scripts/lint

.PHONY: quick
quick: tools ## tests in their short size
	@echo 'quick tests'
	@scripts/gotest -short ./...
	@go -C tools test ./... >/dev/null && echo 'tools: tests passed'

.PHONY: cross
cross: ## build for Windows, macOS and the browser
	@echo 'build for windows/amd64, darwin/arm64 and js/wasm (core)'
	@CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build ./...
	@CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build ./...
	@GOOS=js GOARCH=wasm go build $(foreach d,$(WASM),$(if $(wildcard $(d)),$(d)))

.PHONY: test
test: packages check ## everything CI runs: check, all tests with the race detector, 5 s per fuzz target
	@mkdir -p .cache
	@echo 'all tests with the race detector'
	@scripts/gotest -save $(SUMMARY) -race -timeout 30m $$(go list ./... | grep -v '/test/fault$$')
	@echo 'fault lanes'
	@scripts/gotest -save $(SUMMARY)-fault -timeout 30m ./test/fault
	@scripts/fuzz 5s
	@cat $(SUMMARY) $(SUMMARY)-fault

.PHONY: long
long: packages tools ## the big numbers: TRIPOD_LONG=1, hours
	@mkdir -p .cache
	@TRIPOD_LONG=1 scripts/gotest -save $(SUMMARY) -count=1 -timeout 24h ./...
	@scripts/fuzz 5m
	@cat $(SUMMARY)

.PHONY: fuzz
fuzz: ## 5 s per fuzz target; FUZZTIME=1m for more
	@scripts/fuzz $(or $(FUZZTIME),5s)

.PHONY: bench
bench: ## measure against other programs on the same data
	go run ./test/bench $(ARGS)

.PHONY: demo
demo: packages ## see it work on this machine
	@if [ -x scripts/demo ]; then $(MAKE) --no-print-directory build && scripts/demo; else echo 'there is no demo yet'; fi

.PHONY: packages
packages:
	@scripts/install-deps

.PHONY: tools
tools: $(STAMP)

# The tools are pinned in a module of their own, so that they stay out of the
# product's go.mod.
$(STAMP): tools/go.mod tools/go.sum $(wildcard tools/*/*.go)
	@echo 'build the tools of tools/go.mod into $(TOOLS)'
	@mkdir -p $(TOOLS)
	@go -C tools build -o ../$(TOOLS)/ tool ./testsummary
	@touch $@

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist .cache

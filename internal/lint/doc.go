// Package lint holds the rules of the house as tests: who may import whom,
// which third-party module belongs where, what pure code must not touch, how
// packages are named and described, how large things may grow, and that every
// capability claimed in docs/capabilities.md names a test that exists.
//
// The rules read syntax only, so the whole tree is checked in well under a
// second by a plain go test. Start with tables_test.go: it is the architecture
// on one page. Each rule is a function from a parsed tree to problems, and each
// is itself tested on a small made-up tree that breaks it (bite_test.go).
//
// Never change a table to pass a build. Change it in a commit of its own, with
// a page in docs/decisions that says why.
package lint

package main

import (
	"strings"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	const input = `go: a remark of the go command
{"Action":"output","Package":"p","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    p_test.go:3: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"    p_test.go:9: not proved: mounting, no /dev/fuse\n"}
{"Action":"skip","Package":"p","Test":"TestSkip"}
{"Action":"pass","Package":"p","Test":"TestGood"}
{"Action":"fail","Package":"p","Elapsed":7}
{"Action":"output","Package":"q","Test":"TestPanics","Output":"panic: oh\n"}
{"Action":"output","Package":"q","Output":"exit status 2\n"}
{"Action":"fail","Package":"q","Elapsed":0.1}
{"ImportPath":"r","Action":"build-output","Output":"r.go:1: undefined: x\n"}
{"Action":"fail","Package":"r","Elapsed":0,"FailedBuild":"r"}
{"Action":"output","Package":"s","Output":"ok  \ts\t(cached)\n"}
{"Action":"pass","Package":"s","Elapsed":0}
`
	var out strings.Builder
	s := newSummary(&out, 5*time.Second)
	if err := s.read(strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	got := out.String() + s.text()
	for _, want := range []string{
		"go: a remark", "FAIL p TestBad", "    p_test.go:3: wrong", "FAIL q ended early", "panic: oh", "exit status 2",
		"FAIL r does not build", "undefined: x", "7.0s  p", "not proved: 1\n  mounting, no /dev/fuse (p TestSkip)",
		"1 passed, 3 failed, 1 skipped (4 packages, 1 unchanged since their last pass)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "=== RUN") {
		t.Error("go test's own marks are shown")
	}
}

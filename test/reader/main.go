// Command reader restores a snapshot from a vault directory without any of
// Tripod's own code: it is written from spec/vault.md alone, as a second
// opinion on every vault.
//
//	TRIPOD_SECRET='passphrase or recovery code' go run ./test/reader VAULTDIR OUTDIR [SNAPSHOT]
//
// Without SNAPSHOT it restores the newest one; with "list" it lists them all.
package main

import (
	"fmt"
	"os"
	"strings"

	"tripod/test/reader/reader"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return fmt.Errorf("usage: TRIPOD_SECRET=... reader VAULTDIR OUTDIR [SNAPSHOT|list]")
	}
	v, err := reader.Open(args[0], os.Getenv("TRIPOD_SECRET"))
	if err != nil {
		return err
	}
	for _, w := range v.Warnings {
		fmt.Fprintln(os.Stderr, "reader: warning:", w)
	}
	snaps, err := v.Snapshots()
	if err != nil {
		return err
	}
	if len(snaps) == 0 {
		return fmt.Errorf("the vault holds no snapshot")
	}
	want := ""
	if len(args) == 3 {
		want = args[2]
	}
	if want == "list" {
		for _, s := range snaps {
			fmt.Println(s.Name(), s.Time.Format("2006-01-02 15:04:05"), s.Host, strings.Join(s.Paths, " "))
		}
		return nil
	}
	chosen := snaps[len(snaps)-1]
	for _, s := range snaps {
		if s.Name() == want {
			chosen = s
		}
	}
	if want != "" && chosen.Name() != want {
		return fmt.Errorf("no snapshot %q", want)
	}
	report, err := v.Restore(chosen, args[1])
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d files, %d folders, %d others, %d bytes\n", chosen.Name(), report.Files, report.Folders, report.Others, report.Bytes)
	for _, s := range report.Skipped {
		fmt.Println("skipped:", s)
	}
	return nil
}

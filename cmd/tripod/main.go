// Command tripod backs up files, disks and streams into a vault and gets them
// back. This file and the wiring files beside it are the only place that names
// concrete stores and sources; everything else is handed to it from here.
package main

import (
	"os"
	"runtime/debug"
	_ "time/tzdata" // policies name time zones, which a small system does not know

	"tripod/internal/cli"
)

// version is replaced by the build.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	limitMemory()
	return cli.Main(direct(version), os.Args[1:])
}

// limitMemory trades processor time for memory where the user has not decided:
// the long-lived data of a command is small and its garbage comes in
// megabyte-sized pieces, so that the default of doubling the heap would show.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemoryLimit)
	}
}

// softMemoryLimit makes the collector work harder before a command reaches it.
// It is no hard limit: a command that needs more gets it.
const softMemoryLimit = 120 << 20

package lint

import "slices"

// The two tables of this file are the architecture. Folders are written as
// patterns: * stands for any one folder name or part of it, ** for any number
// of folders.

// coreOrder lists the packages of internal/core. Each may import those above it
// and none below.
var coreOrder = []string{
	"tripod", // the vocabulary
	"run",    // imported from everywhere, imports tripod only
	"frame",
	"seal",
	"chunk",
	"tree",
	"snapshot",
	"machine",
	"policy",
	"reach",
	"access",
	"approval",
	"anomaly",
	"plan",
	"failover",
	"continuity",
	"coverage",
}

// Patterns that several rows share.
var (
	core      = []string{"internal/core/*"}
	contracts = []string{"internal/driver/*"} // also durable and nbd, libraries without a contract
	vaultTop  = []string{"internal/vault"}
	vaultRing = []string{"internal/vault/**"}
	engines   = []string{"internal/engine/*"}
	wire      = []string{"internal/service/wire", "gen/**"}

	// blind is what of core a provider's code may see.
	blind = coreFolders("tripod", "run", "frame", "snapshot", "policy", "reach")

	// fakes are stores, disks and places that behave, for tests of any ring.
	fakes = []string{
		"internal/driver/*/mem", "internal/driver/*/fs", "internal/driver/*/sim", "internal/driver/*/faulty",
		"internal/driver/*/*test", "internal/driver/durable/crashfs", "internal/driver/source/files", "internal/driver/source/disk",
		"internal/driver/source/stream",
	}
)

// A row says what the packages in a folder may import.
type row struct {
	folder string   // pattern
	may    []string // folders of this module; CONTRACT means the folder above the package
	tests  []string // folders that its _test.go files may import besides
	never  []string // standard packages that it must not import; its tests may
	why    string   // ends the sentence that a wrong import is answered with
}

// importTable is read from the top; the first row whose folder fits counts. A
// folder that no row fits has no place in the house yet.
var importTable = []row{
	// internal/core stands first; see coreRows.

	{
		folder: "internal/driver/{durable,nbd}",
		may:    core,
		tests:  fakes,
		why:    "durable and nbd are libraries that anything outside core may use, so they use core alone",
	},
	{
		folder: "internal/driver/*",
		may:    core,
		tests:  fakes,
		why:    "a driver contract knows no adapter: put what is shared into core, what is special into the adapter",
	},
	{
		folder: "internal/driver/*/{faulty,retry,limit,meter,*test}",
		may:    join(core, "CONTRACT"),
		tests:  fakes,
		why:    "decorators and conformance suites see only the contract, so that they fit every adapter",
	},
	{
		folder: "internal/driver/*/*",
		may:    join(core, "CONTRACT", "internal/driver/durable", "internal/driver/nbd"),
		tests:  fakes,
		why:    "an adapter knows its contract and core; cmd/tripod joins adapters",
	},
	{
		folder: "internal/vault",
		may:    blind,
		tests:  join(core, fakes, vaultRing, contracts),
		never:  []string{"net/http"},
		why:    "the vault is blind: it works on sealed frames, and transport is the work of internal/service/wire",
	},
	{
		folder: "internal/vault/**",
		may:    join(blind, vaultRing, "internal/driver/store", "internal/driver/durable"),
		tests:  join(core, fakes),
		never:  []string{"net/http"},
		why:    "the vault is blind: it works on sealed frames over a store, and never sees keys, chunks or trees",
	},
	{
		folder: "internal/engine/*",
		may:    join(core, contracts, vaultTop, engines),
		tests:  join(fakes, vaultRing),
		never:  []string{"net/http", "log", "log/slog"},
		why:    "an engine takes contracts and tells progress by run.Event: cmd hands it the adapter or the vault",
	},
	{
		folder: "internal/service/{zone,node}",
		may:    join(core, contracts, vaultRing, engines, wire),
		tests:  join(fakes, "internal/lab/**"),
		why:    "a service is handed its adapters by cmd and reaches other services through internal/service/wire",
	},
	{
		folder: "internal/service/*",
		may:    join(core, contracts, vaultTop, engines, wire),
		tests:  join(fakes, vaultRing, "internal/lab/**"),
		why:    "a service is handed its adapters by cmd and reaches other services through internal/service/wire",
	},
	{
		folder: "internal/cli",
		may:    join(core, contracts, vaultRing, engines, wire, "internal/service/mount", "internal/cli/*"),
		tests:  join(fakes, "internal/lab/**"),
		why:    "a command parses, calls and prints; what it calls is handed to it by cmd",
	},
	{
		folder: "internal/cli/terminal",
		may:    join(core, "internal/driver/durable"),
		why:    "terminal prints, asks and draws; what there is to say comes from the commands",
	},
	{
		folder: "internal/cli/listing",
		may:    join(core, "internal/engine/browse", "internal/engine/catalog", "internal/cli/terminal"),
		why:    "listing shows what a vault holds, and looks for nothing itself",
	},
	{
		folder: "internal/cli/kit",
		why:    "kit words the recovery kit from what it is given, and imports nothing of the house",
	},
	{
		folder: "internal/cli/verdict",
		may:    join(core, vaultTop, []string{"internal/engine/verify", "internal/cli/terminal"}),
		why:    "verdict words what verify found, and finds nothing itself",
	},
	{folder: "internal/lab/**", may: []string{"internal/**"}, why: "the lab may use everything but cmd"},
	{folder: "internal/lint", why: "the rules depend on nothing they judge"},
	{folder: "test/**", may: []string{"internal/**", "gen/**", "test/**"}, why: "tests may use everything but cmd"},
	{folder: "cmd/tripod", may: []string{"internal/**", "gen/**", "web"}, why: "cmd joins everything but tests"},
	{folder: "web/wasm", may: coreFolders("tripod", "run", "frame", "seal", "tree", "snapshot"), why: "the browser gets the formats and nothing else"},
	{folder: "web", why: "web only carries the built console"},
	{folder: "gen/**", may: []string{"gen/**"}, why: "generated code stands alone"},
}

// pureNever is what no package of core imports: bytes and values go in, bytes
// and decisions come out.
var pureNever = []string{
	"os/**", "net/**", "syscall/**", "log/**", "math/rand/**", "database/**", "plugin", "runtime/cgo", "embed", "io/ioutil",
}

// moduleTable maps each third-party module, or a package of one, to the folders
// that may import it; the first fitting row counts.
// Test files may import any module of the table; modules marked tests belong
// to test files, to folders called *test, and to test and internal/lab alone.
var moduleTable = []module{
	{path: "github.com/zeebo/blake3", folders: join(coreFolders("frame", "seal", "chunk", "tree", "snapshot"), vaultRing, "internal/engine/backup")},
	{path: "github.com/klauspost/compress", folders: coreFolders("frame", "seal")},
	{path: "github.com/PlakarKorp/go-cdc-chunkers", folders: coreFolders("chunk")},
	{path: "github.com/sethvargo/go-diceware", folders: coreFolders("seal")},
	{path: "golang.org/x/crypto/cryptobyte", folders: coreFolders("frame", "seal", "tree", "snapshot")}, // parsing, no secrets
	{path: "golang.org/x/crypto", folders: coreFolders("seal")},
	{path: "golang.org/x/text/unicode/norm", folders: coreFolders("seal")}, // passphrases
	{path: "github.com/cockroachdb/pebble/v2", folders: []string{"internal/vault/index"}},
	{path: "github.com/minio/minio-go/v7", folders: []string{"internal/driver/store/s3", "internal/driver/store/s3test"}},
	{path: "github.com/spf13/cobra", folders: []string{"internal/cli", "cmd/*"}},
	{path: "github.com/spf13/pflag", folders: []string{"internal/cli", "cmd/*"}},
	{path: "github.com/vbauerster/mpb/v8", folders: []string{"internal/cli/terminal"}},
	{path: "golang.org/x/term", folders: []string{"internal/cli/terminal"}},
	{path: "golang.org/x/sys", folders: []string{"internal/driver/**", "internal/engine/restore", "internal/engine/backup", "internal/cli", "cmd/*", "internal/vault/index"}},
	{path: "golang.org/x/sync", folders: []string{"internal/driver/**", "internal/vault/**", "internal/engine/*", "internal/service/*", "internal/cli", "internal/lab/**", "cmd/*"}},
	{path: "github.com/hanwen/go-fuse/v2", folders: []string{"internal/service/mount"}},
	{path: "pgregory.net/rapid", tests: true},
	{path: "github.com/rogpeppe/go-internal", tests: true},
	{path: "go.uber.org/goleak", tests: true},
}

type module struct {
	path    string
	folders []string
	tests   bool
}

// coreRows makes one row per package of coreOrder.
func coreRows() []row {
	var rows []row
	for i, name := range coreOrder {
		never := slices.Clone(pureNever)
		if name != "seal" {
			never = append(never, "crypto/rand")
		}
		may := coreFolders(coreOrder[:i]...)
		if name == "run" {
			may = coreFolders("tripod")
		}
		rows = append(rows, row{
			folder: "internal/core/" + name,
			may:    may,
			tests:  core,
			never:  never,
			why: "core packages import those above them in coreOrder and touch neither disk, network, clock nor chance " +
				"(keys are made in core/seal): take the bytes or the value as an argument",
		})
	}
	return rows
}

func coreFolders(names ...string) []string {
	var folders []string
	for _, n := range names {
		folders = append(folders, "internal/core/"+n)
	}
	return folders
}

// join makes one list of strings and lists of strings.
func join(parts ...any) []string {
	var all []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, p)
		case []string:
			all = append(all, p...)
		default:
			panic("join takes strings and lists of strings")
		}
	}
	return all
}

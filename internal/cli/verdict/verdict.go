// Package verdict tells people and programs what verify found.
package verdict

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/verify"
	"tripod/internal/vault"
)

type result struct {
	Good      bool       `json:"good"`
	Snapshots int64      `json:"snapshots"`
	Nodes     int64      `json:"nodes"`
	Data      int64      `json:"data_blobs"`
	Skipped   int64      `json:"data_blobs_left_out"`
	Bytes     int64      `json:"bytes"`
	Missing   int64      `json:"missing_blobs"`
	Damaged   int64      `json:"damaged_blobs"`
	Files     []lostFile `json:"damaged_files"`
	Lost      int64      `json:"files_not_whole"`
	AtLeast   bool       `json:"at_least,omitempty"` // there may be more
	Unlisted  []unlisted `json:"unlisted"`
	Problems  []string   `json:"problems"`
	Packs     []string   `json:"damaged_packs"`
	Truncated bool       `json:"truncated,omitempty"`
	Sample    float64    `json:"sample_percent"`
	Seed      uint64     `json:"seed,omitempty"`
	Seconds   float64    `json:"seconds"`
}

type lostFile struct {
	Path      string      `json:"path"`
	PathRaw   string      `json:"path_raw,omitempty"`
	Stretch   bool        `json:"stretch,omitempty"` // all that is listed from path
	Until     string      `json:"until,omitempty"`   // up to this one, or to the end
	UntilRaw  string      `json:"until_raw,omitempty"`
	Size      int64       `json:"size,omitempty"`
	Missing   []lostRange `json:"missing,omitempty"`
	Snapshots []string    `json:"snapshots"`
	Blob      string      `json:"blob"` // that it lacks first
	Error     string      `json:"error"`
}

type lostRange struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// unlisted is a snapshot with files of which not even the name is known.
type unlisted struct {
	Snapshot string `json:"snapshot"`
	Total    int64  `json:"files"`
	Files    int64  `json:"unlisted_files"`
}

func ofFile(f *verify.File) lostFile {
	j := lostFile{
		Path: f.Path, PathRaw: terminal.Raw(f.Path), Stretch: f.Stretch, Until: f.Until, UntilRaw: terminal.Raw(f.Until),
		Snapshots: f.Snapshots, Blob: f.Blob.String(), Error: terminal.OneLine(f.Err),
	}
	for _, m := range f.Missing {
		j.Size = f.Size
		j.Missing = append(j.Missing, lostRange(m))
	}
	return j
}

// group is the files that one pack's damage costs, or the missing blobs.
type group struct {
	title string
	files []verify.File
}

// Most that is listed; --json lists all.
const (
	mostGroups    = 20
	mostNames     = 20
	mostSnapshots = 3
)

// Run is how verify was run.
type Run struct {
	Sample float64 // percent
	Seed   uint64
	Took   time.Duration
}

// Print prints a report. The verdict is its last line.
func Print(c *terminal.Console, r *verify.Report, how Run) error {
	good := r.Missing+r.Damaged == 0 && len(r.Files)+len(r.Problems)+len(r.Packs) == 0 && (r.Snapshots > 0 || c.Warnings() == 0)
	if c.JSON {
		j := result{
			good, r.Snapshots, r.Nodes, r.Data, r.Skipped, r.Bytes, r.Missing, r.Damaged,
			[]lostFile{},
			r.NotWhole, r.AtLeast,
			[]unlisted{},
			[]string{},
			[]string{},
			r.Truncated, how.Sample, how.Seed,
			how.Took.Seconds(),
		}
		for i := range r.Files {
			j.Files = append(j.Files, ofFile(&r.Files[i]))
		}
		for _, u := range r.Unlisted {
			j.Unlisted = append(j.Unlisted, unlisted(u))
		}
		for _, p := range r.Packs {
			j.Packs = append(j.Packs, p.Document+": "+terminal.OneLine(p.Err))
		}
		for _, p := range r.Problems {
			j.Problems = append(j.Problems, p.Document+": "+terminal.OneLine(p.Err))
		}
		return c.Result("verify", j)
	}
	for i, p := range r.Packs {
		if i == mostGroups {
			c.Printf("and %s more\n", tripod.Count(len(r.Packs)-i, "damaged pack"))
			break
		}
		c.Printf("damaged: %s\n", terminal.OneLine(p.Err))
	}
	printDamage(c, r)
	c.Printf("Read %s in %s of %s, %s, in %s.\n", terminal.Size(r.Bytes), tripod.Count(r.Data+r.Nodes, "blob"), tripod.Count(r.Snapshots, "snapshot"), part(how, r), terminal.Duration(how.Took))
	if good {
		c.Printf("All that was read is good.\n")
		return nil
	}
	if r.Missing+r.Damaged == 0 && len(r.Files)+len(r.Packs) == 0 && len(r.Problems) > 0 {
		c.Printf("All that was read is good, but %s of the log cannot be used: see the warnings for what that costs.\n", tripod.Count(len(r.Problems), "document"))
		return nil
	}
	packs := ""
	if len(r.Packs) > 0 {
		packs = tripod.Count(len(r.Packs), "pack") + " and "
	}
	c.Printf("%s%s damaged, %s missing; %s cannot be restored whole.\n", packs, tripod.Count(r.Damaged, "blob"), tripod.Number(r.Missing), r.Loss())
	return nil
}

// Nothing tells that no snapshot was verified; others says that there are some,
// left out by choice. Packs without any record are what a first backup leaves
// that did not end, and a vault whose records vanished.
func Nothing(c *terminal.Console, stats *vault.Stats, others bool, how Run) error {
	if stats.Records == 0 && stats.Packs > 0 {
		c.Warn("", tripod.Errorf(tripod.NotFound, "the vault holds %s and not one snapshot's record: its first backup did not end, or the records are missing",
			tripod.Count(stats.Packs, "pack")).WithHint("if there were snapshots, get the folder record from another copy of the vault"))
	}
	switch {
	case c.JSON:
		return Print(c, &verify.Report{}, how)
	case others:
		c.Printf("No snapshot fits: there is nothing to verify.\n")
	case c.Warnings() > 0:
		c.Printf("The vault shows no snapshots: nothing was verified.\n")
	default:
		c.Printf("The vault holds no snapshots: there is nothing to verify.\n")
	}
	return nil
}

// printDamage names what is lost, by what it is lost with.
func printDamage(c *terminal.Console, r *verify.Report) {
	groups := grouped(r.Files)
	for i, g := range groups {
		if i == mostGroups {
			left := 0
			for _, g := range groups[i:] {
				left += len(g.files)
			}
			c.Printf("and %s more damage, with %s: --json lists all\n", tripod.Number(len(groups)-i), tripod.Count(left, "file"))
			break
		}
		c.Printf("%s\n", g.title)
		for i, file := range g.files {
			if i == mostNames {
				c.Printf("  and %s more: --json lists all\n", tripod.Number(len(g.files)-i))
				break
			}
			ids := strings.Join(file.Snapshots[:min(len(file.Snapshots), mostSnapshots)], ", ")
			if more := len(file.Snapshots) - mostSnapshots; more > 0 {
				ids += " and " + tripod.Number(more) + " more"
			}
			c.Printf("  %s in %s %s\n", terminal.Printable(file.What()), terminal.Plural(len(file.Snapshots), "snapshot", "snapshots"), ids)
		}
	}
	for i, u := range r.Unlisted {
		if i == mostNames {
			c.Printf("and %s more that lost names of files: --json lists all\n", tripod.Count(len(r.Unlisted)-i, "snapshot"))
			break
		}
		c.Printf("Snapshot %s has %s; %s of them are in damaged folders' lists, so not even their names are known.\n",
			u.Snapshot, tripod.Count(u.Total, "file"), tripod.Number(u.Files))
	}
	if r.Truncated {
		c.Printf("There is more damage than is listed.\n")
	}
}

// grouped puts files together that are lost with the same pack, and those that
// lack a missing blob. The title tells of the first file's.
func grouped(files []verify.File) []group {
	var groups []group
	at := map[string]int{}
	for _, file := range files {
		title := terminal.OneLine(file.Err)
		key := title
		if pack, _, ok := strings.Cut(title, ": "); ok && strings.HasPrefix(pack, "pack ") {
			key = pack
		}
		word := "damaged: "
		if errors.Is(file.Err, tripod.NotFound) {
			key, word = "missing", "missing: "
		}
		i, known := at[key]
		if !known {
			i = len(groups)
			at[key] = i
			groups = append(groups, group{title: word + title})
		}
		groups[i].files = append(groups[i].files, file)
	}
	return groups
}

func part(how Run, r *verify.Report) string {
	if how.Sample >= 100 {
		return "all of the data"
	}
	return "a sample of " + tripod.Number(r.Data) + " of " + tripod.Count(r.Data+r.Skipped, "data blob") + " (--seed " + strconv.FormatUint(how.Seed, 10) + ")"
}

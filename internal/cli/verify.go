package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/verify"
)

type verifyFlags struct {
	filterFlags
	sample float64
	seed   uint64
}

func newVerify(a *app) *cobra.Command {
	f := new(verifyFlags)
	cmd := &cobra.Command{
		Use:   "verify [SNAPSHOT...]",
		Short: "Prove that the snapshots can be restored",
		Long: `Reads everything that the snapshots of a vault need, decrypts it and checks it to
the last byte. What is damaged or lost is named with the snapshots it is in.

With --sample only a part of the data is read, chosen anew each time; names and
structure are always read whole.

The last line is the verdict. Damage ends with exit code 9.`,
		Example: `  tripod verify --vault /mnt/disk/vault
  tripod verify --sample 5
  tripod verify latest`,
		Args: func(cmd *cobra.Command, _ []string) error {
			if f.sample <= 0 || f.sample > 100 {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--sample %g: must be more than 0 and at most 100", f.sample))
			}
			return nil
		},
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), f, args) },
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	cmd.Flags().Float64Var(&f.sample, "sample", 100, "read `PERCENT` of the data")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "choose the sample by `NUMBER`, to repeat one")
	return cmd
}

func (a *app) verify(ctx context.Context, f *verifyFlags, specs []string) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	chosen, err := u.choose(f, specs)
	if err != nil {
		return err
	}
	if len(chosen) == 0 && len(u.catalog.Problems()) == 0 {
		if a.JSON {
			return a.printVerify(f, &verify.Report{}, 0)
		}
		a.Printf("The vault holds no snapshots: there is nothing to verify.\n")
		return nil
	}
	if f.seed == 0 && f.sample < 100 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		f.seed = binary.LittleEndian.Uint64(b[:]) >> 32
	}
	began := time.Now()
	show := a.Progress()
	report, err := verify.Run(ctx, u, u.catalog, verify.Options{
		Sample: f.sample, Seed: f.seed, Snapshots: chosen,
		Progress: func(e run.Event) {
			if e.Warning == nil { // the report tells of each
				show.Emit(e)
			}
		},
	})
	a.StopProgress()
	if ctx.Err() != nil {
		return err
	}
	if err != nil && !errors.Is(err, tripod.Corrupt) {
		return err
	}
	return errors.Join(a.printVerify(f, report, time.Since(began)), err)
}

// choose gives the snapshots that are meant, all of them by default.
func (u *unlocked) choose(f *verifyFlags, specs []string) ([]catalog.Snapshot, error) {
	if len(specs) == 0 {
		return u.catalog.Select(f.filter()), nil
	}
	var chosen []catalog.Snapshot
	for _, spec := range specs {
		s, err := u.catalog.FindIn(spec, f.filter())
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}

type verifyResult struct {
	Good      bool         `json:"good"`
	Snapshots int64        `json:"snapshots"`
	Nodes     int64        `json:"nodes"`
	Data      int64        `json:"data_blobs"`
	Skipped   int64        `json:"data_blobs_left_out"`
	Bytes     int64        `json:"bytes"`
	Missing   int64        `json:"missing_blobs"`
	Damaged   int64        `json:"damaged_blobs"`
	Files     []verifyFile `json:"damaged_files"`
	Problems  []string     `json:"problems"`
	Truncated bool         `json:"truncated,omitempty"`
	Sample    float64      `json:"sample_percent"`
	Seed      uint64       `json:"seed,omitempty"`
	Seconds   float64      `json:"seconds"`
}

type verifyFile struct {
	Path      string   `json:"path"`
	Snapshots []string `json:"snapshots"`
	Error     string   `json:"error"`
}

func (a *app) printVerify(f *verifyFlags, r *verify.Report, took time.Duration) error {
	good := r.Missing == 0 && r.Damaged == 0 && len(r.Files) == 0 && len(r.Problems) == 0
	if a.JSON {
		j := verifyResult{
			good, r.Snapshots, r.Nodes, r.Data, r.Skipped, r.Bytes, r.Missing, r.Damaged,
			[]verifyFile{},
			[]string{},
			r.Truncated, f.sample, f.seed,
			took.Seconds(),
		}
		for _, file := range r.Files {
			j.Files = append(j.Files, verifyFile{file.Path, file.Snapshots, terminal.OneLine(file.Err)})
		}
		for _, p := range r.Problems {
			j.Problems = append(j.Problems, p.Document+": "+terminal.OneLine(p.Err))
		}
		return a.Result("verify", j)
	}
	for _, file := range r.Files {
		a.Printf("damaged: %s in snapshot%s %s\n  %s\n", terminal.Printable(file.Path), terminal.Plural(len(file.Snapshots), "", "s"),
			strings.Join(file.Snapshots, ", "), terminal.OneLine(file.Err))
	}
	if r.Truncated {
		a.Printf("... and more.\n")
	}
	a.Printf("Read %s in %s of %s, %s, in %s.\n", terminal.Size(r.Bytes), terminal.Count(r.Data+r.Nodes, "blob"), terminal.Count(r.Snapshots, "snapshot"), a.part(f, r), terminal.Duration(took))
	if good {
		a.Printf("All that was read is good.\n")
		return nil
	}
	a.Printf("%s damaged, %s missing; %s cannot be restored whole.\n", terminal.Count(r.Damaged, "blob"), terminal.Number(r.Missing), terminal.Count(int64(len(r.Files)), "file"))
	return nil
}

func (a *app) part(f *verifyFlags, r *verify.Report) string {
	if f.sample >= 100 {
		return "all of the data"
	}
	return "a sample of " + terminal.Number(r.Data) + " of " + terminal.Number(r.Data+r.Skipped) + " data blobs (--seed " + strconv.FormatUint(f.seed, 10) + ")"
}

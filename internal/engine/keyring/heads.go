package keyring

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/vault"
)

// Chain names one machine's snapshots of one source.
type Chain struct {
	Machine tripod.MachineID
	Source  tripod.SourceID
}

// Head is the newest snapshot of a chain: its number and its record's hash.
type Head struct {
	Seq  uint64
	Hash snapshot.Hash
}

// Heads is the newest snapshot of every chain of a vault, as a machine saw it.
// A vault that shows less at a later time was rolled back, or hides something.
type Heads map[Chain]Head

// ReadHeads reads what this machine has seen of a vault. A file that is missing
// or unreadable is as good as nothing seen.
func ReadHeads(name string) (Heads, error) {
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Heads{}, nil
	}
	if err != nil {
		return nil, durable.Classify(err, "read", name)
	}
	heads := Heads{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		fields := bytes.Fields(line)
		var c Chain
		var h Head
		ok := len(fields) == 4 && tripod.ParseHex(c.Machine[:], string(fields[0])) &&
			tripod.ParseHex(c.Source[:], string(fields[1])) && tripod.ParseHex(h.Hash[:], string(fields[3]))
		if ok {
			_, err := fmt.Sscan(string(fields[2]), &h.Seq)
			ok = err == nil
		}
		if !ok {
			return nil, tripod.Errorf(tripod.Corrupt, "%s, line %d: malformed", name, n).
				WithHint("remove the file; it only holds what this machine has seen of the vault")
		}
		heads[c] = h
	}
	return heads, nil
}

// Write keeps the heads, durably.
func (h Heads) Write(name string) error {
	chains := make([]Chain, 0, len(h))
	for c := range h {
		chains = append(chains, c)
	}
	slices.SortFunc(chains, func(a, b Chain) int {
		return cmp.Or(bytes.Compare(a.Machine[:], b.Machine[:]), bytes.Compare(a.Source[:], b.Source[:]))
	})
	var b bytes.Buffer
	b.WriteString("# The newest snapshots that this machine has seen: machine, source, number, hash of the record.\n")
	for _, c := range chains {
		fmt.Fprintf(&b, "%s %s %d %x\n", c.Machine, c.Source, h[c].Seq, h[c].Hash)
	}
	if err := durable.MakeDir(filepath.Dir(name), privateDir); err != nil {
		return err
	}
	return durable.ReplaceFile(name, privateFile, b.Bytes())
}

// Merge adds what was seen now and reports whether that changed anything. What
// was seen before and is gone stays.
func (h Heads) Merge(now Heads) bool {
	changed := false
	for c, head := range now {
		if old, ok := h[c]; !ok || head.Seq > old.Seq {
			h[c] = head
			changed = true
		}
	}
	return changed
}

// Scan reads the heads of the chains that a vault shows under a prefix of
// record names. For each chain in seen that reaches as far as was seen, it checks
// that the record seen is still the one there. What is missing or replaced is
// told as errors that name machine and numbers.
func Scan(ctx context.Context, r Documents, prefix string, seen Heads) (Heads, []error, error) {
	now := Heads{}
	replaced := map[Chain]bool{}
	err := r.Documents(ctx, prefix, func(_ string, content []byte) error {
		record, err := snapshot.ParseRecord(content)
		if err != nil {
			return nil //nolint:nilerr // the catalog tells of damaged records
		}
		c := Chain{record.Key.Machine, record.Key.Source}
		hash := snapshot.HashOf(content)
		if record.Key.Seq > now[c].Seq {
			now[c] = Head{record.Key.Seq, hash}
		}
		if s, ok := seen[c]; ok && s.Seq == record.Key.Seq && s.Hash != hash {
			replaced[c] = true
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return now, compare(seen, now, replaced), nil
}

// ScanAll is Scan of the whole vault.
func ScanAll(ctx context.Context, r Documents, seen Heads) (Heads, []error, error) {
	return Scan(ctx, r, vault.RecordPrefix, seen)
}

func compare(seen, now Heads, replaced map[Chain]bool) []error {
	var problems []error
	for c, s := range seen {
		n := now[c]
		switch {
		case replaced[c]:
			problems = append(problems, tripod.Errorf(tripod.Corrupt,
				"snapshot %d of machine %.8s is not the one this machine has seen before", s.Seq, c.Machine).
				WithHint("the vault was rolled back and written to again, or exchanged: ask whoever keeps it"))
		case n.Seq < s.Seq:
			problems = append(problems, tripod.Errorf(tripod.Corrupt,
				"the vault shows snapshots of machine %.8s up to number %d, but this machine has seen number %d", c.Machine, n.Seq, s.Seq).
				WithHint("the vault was rolled back or hides snapshots: ask whoever keeps it, and look into other copies"))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return problems
}

// Under reports whether the records of a chain have names below prefix.
func Under(prefix string, c Chain) bool {
	return strings.HasPrefix(vault.RecordPrefix+c.Machine.String()+"/"+c.Source.String()+"/", prefix)
}

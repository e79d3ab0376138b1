package local

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/vault/index"
)

// What a check found damaged must count as missing for the next backup, whoever
// holds the index then, and even if the index is thrown away meanwhile. So it is
// noted beside the index too: in files of lines that are written once, each by
// one check, and removed when nothing in them is of use any more.

// suspect is a copy of a blob that was found damaged; without a blob, a pack
// whose table of contents was.
type suspect struct {
	pack   tripod.PackID
	offset uint32
	blob   tripod.ID
}

func (s suspect) whole() bool { return s.blob == tripod.ID{} }

func (s suspect) line() string {
	if s.whole() {
		return s.pack.String() + "\n"
	}
	return fmt.Sprintf("%s %d %s\n", s.pack, s.offset, s.blob)
}

func parseSuspect(line string) (s suspect, ok bool) {
	fields := strings.Fields(line)
	switch len(fields) {
	case 1:
		return s, tripod.ParseHex(s.pack[:], fields[0])
	case 3:
		n, err := strconv.ParseUint(fields[1], 10, 32)
		s.offset = uint32(n)
		return s, err == nil && tripod.ParseHex(s.pack[:], fields[0]) && tripod.ParseHex(s.blob[:], fields[2])
	}
	return s, false
}

// suspects are those that are noted, by the file they stand in.
type suspects struct {
	mu    sync.Mutex
	noted map[suspect]bool
	files map[string][]suspect
}

func (v *Vault) suspectDir() string {
	return filepath.Join(v.opts.IndexDir, "suspect-"+hex.EncodeToString(v.descriptor.Vault[:]))
}

// readSuspects reads what was noted. What cannot be read is as good as not
// noted: a check finds it again.
func (v *Vault) readSuspects() {
	s := &v.suspects
	s.noted, s.files = map[suspect]bool{}, map[string][]suspect{}
	entries, _ := os.ReadDir(v.suspectDir())
	for _, e := range entries {
		name := filepath.Join(v.suspectDir(), e.Name())
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		s.files[name] = nil
		for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
			if one, ok := parseSuspect(lines.Text()); ok {
				s.noted[one] = true
				s.files[name] = append(s.files[name], one)
			}
		}
	}
}

// note keeps what was found damaged. A private index ends with this process, so
// there the error counts.
func (v *Vault) note(x *index.Index, found []suspect) error {
	v.suspects.mu.Lock()
	defer v.suspects.mu.Unlock()
	var b strings.Builder
	for _, s := range found {
		if !v.suspects.noted[s] {
			b.WriteString(s.line())
		}
	}
	if b.Len() == 0 {
		return nil
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	err := durable.MakeDir(v.suspectDir(), 0o700)
	if err == nil {
		err = durable.ReplaceFile(filepath.Join(v.suspectDir(), hex.EncodeToString(random[:])), 0o600, []byte(b.String()))
	}
	if err != nil {
		if x.Origin().Private {
			return fmt.Errorf("what was found damaged could not be noted: %w", err)
		}
		return nil
	}
	for _, s := range found {
		v.suspects.noted[s] = true
	}
	return nil
}

// noteTables notes the packs that were found to have damaged tables.
func (v *Vault) noteTables(ctx context.Context) error {
	x, err := v.index(ctx)
	if err != nil {
		return err
	}
	var found []suspect
	for _, d := range v.Damaged() {
		if errors.Is(d.Err, tripod.Corrupt) {
			found = append(found, suspect{pack: d.Pack})
		}
	}
	return v.note(x, found)
}

// dropSuspects makes an index that was just opened look again at the packs whose
// tables were found damaged.
func (v *Vault) dropSuspects(x *index.Index) error {
	var packs []tripod.PackID
	for s := range v.suspects.noted {
		if p, ok := x.Named(s.pack); ok && s.whole() && !p.Damaged {
			packs = append(packs, s.pack)
		}
	}
	return x.Drop(packs)
}

// applySuspects makes an index that was just opened, and knows all packs, count
// what was noted as missing.
func (v *Vault) applySuspects(x *index.Index) error {
	var all []suspect
	var ids []tripod.ID
	for s := range v.suspects.noted {
		if !s.whole() {
			all, ids = append(all, s), append(ids, s.blob)
		}
	}
	there, healed := make([]bool, len(all)), make([]bool, len(all))
	var bad []index.Entry
	err := x.Find(ids, func(i int, e *index.Entry) error {
		p, _ := x.Pack(e.Pack)
		switch at := (suspect{p.Name, e.Offset, e.ID}); {
		case at == all[i]:
			there[i] = true
			if !e.Suspect {
				bad = append(bad, *e)
			}
		case !v.suspects.noted[at] && !e.Suspect:
			healed[i] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		if _, err := x.Suspect(bad); err != nil {
			return err
		}
	}
	of := map[suspect]bool{}
	for i, s := range all {
		of[s] = there[i] && !healed[i]
	}
	v.pruneSuspects(x, of)
	return nil
}

// pruneSuspects removes the files of which nothing is of use any more.
func (v *Vault) pruneSuspects(x *index.Index, of map[suspect]bool) {
	for name, listed := range v.suspects.files {
		use := false
		for _, s := range listed {
			p, ok := x.Named(s.pack)
			use = use || of[s] || s.whole() && ok && p.Damaged && x.Origin().Private
		}
		if use {
			continue
		}
		_ = os.Remove(name) // one that stays does no harm
		for _, s := range listed {
			delete(v.suspects.noted, s)
		}
	}
}

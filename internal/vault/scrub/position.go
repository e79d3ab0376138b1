package scrub

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// position is when each pack was found good last. It lies in a file of lines in a
// cache directory. Whatever of it is lost is checked again.
type position struct {
	file  string
	times map[tripod.PackID]int64 // seconds since 1970
	saved time.Time
}

const saveEvery = 20 * time.Second

// readPosition reads a file; one that cannot be read is as good as empty.
func readPosition(file string) *position {
	p := &position{file: file, times: map[tripod.PackID]int64{}, saved: time.Now()}
	if file == "" {
		return p
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return p
	}
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		name, at, _ := strings.Cut(lines.Text(), " ")
		var pack tripod.PackID
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err == nil && seconds > 0 && tripod.ParseHex(pack[:], name) {
			p.times[pack] = seconds
		}
	}
	return p
}

// pack is a pack that is stored.
type pack struct {
	name tripod.PackID
	size int64
}

// order puts the packs into the order in which they are checked: those that never
// were first, then those that were longest ago. What is not stored any more is
// forgotten.
func (p *position) order(packs []pack) {
	slices.SortFunc(packs, func(a, b pack) int {
		return cmp.Or(cmp.Compare(p.times[a.name], p.times[b.name]), bytes.Compare(a.name[:], b.name[:]))
	})
	stored := make(map[tripod.PackID]int64, len(packs))
	for _, k := range packs {
		if at, ok := p.times[k.name]; ok {
			stored[k.name] = at
		}
	}
	p.times = stored
}

// oldest tells since when every pack was checked; zero when one never was.
func (p *position) oldest(packs []pack) (at time.Time) {
	for i, k := range packs {
		seconds := p.times[k.name]
		if seconds == 0 {
			return time.Time{}
		}
		if t := time.Unix(seconds, 0); i == 0 || t.Before(at) {
			at = t
		}
	}
	return at
}

// save keeps it, unless that was done a moment ago.
func (p *position) save(now bool) error {
	if p.file == "" || !now && time.Since(p.saved) < saveEvery {
		return nil
	}
	p.saved = time.Now()
	names := make([]tripod.PackID, 0, len(p.times))
	for name := range p.times {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b tripod.PackID) int { return bytes.Compare(a[:], b[:]) })
	var b bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&b, "%s %d\n", name, p.times[name])
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return durable.Classify(err, "make directory", filepath.Dir(p.file))
	}
	return durable.ReplaceFile(p.file, 0o600, b.Bytes())
}

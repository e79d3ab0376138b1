package keyring

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// Memory is what a machine has seen of a vault. A vault that shows less at a
// later time was rolled back, or hides something; see Look.
type Memory struct {
	Heads     map[Chain]Head
	Forgotten map[Chain]Numbers // snapshots that the company ordered to forget
	Keyring   Ring
}

// Chain names one machine's snapshots of one source.
type Chain struct {
	Machine tripod.MachineID
	Source  tripod.SourceID
}

// Head is the newest snapshot of a chain: its number, and of its record the hash
// and the time.
type Head struct {
	Seq  uint64
	Hash snapshot.Hash
	Time time.Time
}

// Ring is the newest keyring, and the hashes of those it has replaced. What is
// sealed in a keyring does not say how old it is, but one that was replaced never
// comes back by itself.
type Ring struct {
	Number   int // 0 for none
	Hash     snapshot.Hash
	Replaced map[snapshot.Hash]bool
}

// NewMemory is that of a machine that has seen nothing.
func NewMemory() *Memory {
	return &Memory{map[Chain]Head{}, map[Chain]Numbers{}, Ring{Replaced: map[snapshot.Hash]bool{}}}
}

// MemoryFile is where a machine's memory of a vault lies below its
// configuration.
func MemoryFile(config string, vault [16]byte) string {
	return filepath.Join(config, "vaults", hex.EncodeToString(vault[:]), "seen")
}

// ReadMemory reads what this machine has seen of a vault. A file that is missing
// is as good as nothing seen.
func ReadMemory(name string) (*Memory, error) {
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return NewMemory(), nil
	}
	if err != nil {
		return NewMemory(), durable.Classify(err, "read", name)
	}
	m := NewMemory()
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, len(content)+1)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if !m.parse(strings.Fields(line)) {
			return NewMemory(), tripod.Errorf(tripod.Corrupt, "%s, line %d: malformed", name, n).
				WithHint("it only holds what this machine has seen of the vault, and is written anew")
		}
	}
	return m, nil
}

// parse reads a line that Write wrote.
func (m *Memory) parse(fields []string) bool {
	if len(fields) < 2 {
		return false
	}
	switch kind, f := fields[0], fields[1:]; {
	case kind == "head" && len(f) == 5:
		c, ok := parseChain(f)
		var h Head
		var err, err2 error
		h.Seq, err = strconv.ParseUint(f[2], 10, 64)
		h.Time, err2 = time.Parse(time.RFC3339, f[4])
		ok = ok && err == nil && err2 == nil && tripod.ParseHex(h.Hash[:], f[3])
		m.Heads[c] = h
		return ok
	case kind == "forgotten" && len(f) == 3:
		c, ok := parseChain(f)
		numbers, valid := parseNumbers(f[2])
		m.Forgotten[c] = numbers
		return ok && valid
	case kind == "keyring" && len(f) == 2:
		n, err := strconv.Atoi(f[0])
		m.Keyring.Number = n
		return err == nil && tripod.ParseHex(m.Keyring.Hash[:], f[1])
	case kind == "replaced" && len(f) == 1:
		var h snapshot.Hash
		ok := tripod.ParseHex(h[:], f[0])
		m.Keyring.Replaced[h] = true
		return ok
	}
	return false
}

func parseChain(f []string) (c Chain, ok bool) {
	return c, tripod.ParseHex(c.Machine[:], f[0]) && tripod.ParseHex(c.Source[:], f[1])
}

// Write keeps the memory, durably. Names are not kept: what a reader of other
// machines' snapshots has learnt is none of this file's business.
func (m *Memory) Write(name string) error {
	var b bytes.Buffer
	b.WriteString("# What this machine has seen of the vault: the newest snapshot of each source, which ones were\n" +
		"# forgotten, the newest keyring and those it replaced. A vault that shows less was rolled back.\n")
	for _, c := range sortedChains(m.Heads) {
		h := m.Heads[c]
		fmt.Fprintf(&b, "head %s %s %d %x %s\n", c.Machine, c.Source, h.Seq, h.Hash, h.Time.UTC().Format(time.RFC3339))
	}
	for _, c := range sortedChains(m.Forgotten) {
		fmt.Fprintf(&b, "forgotten %s %s %s\n", c.Machine, c.Source, m.Forgotten[c])
	}
	if m.Keyring.Number > 0 {
		fmt.Fprintf(&b, "keyring %d %x\n", m.Keyring.Number, m.Keyring.Hash)
	}
	for _, h := range slices.SortedFunc(maps.Keys(m.Keyring.Replaced), func(a, b snapshot.Hash) int { return bytes.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&b, "replaced %x\n", h)
	}
	if err := durable.MakeDir(filepath.Dir(name), privateDir); err != nil {
		return err
	}
	return durable.ReplaceFile(name, privateFile, b.Bytes())
}

func sortedChains[V any](of map[Chain]V) []Chain {
	return slices.SortedFunc(maps.Keys(of), func(a, b Chain) int {
		return cmp.Or(bytes.Compare(a.Machine[:], b.Machine[:]), bytes.Compare(a.Source[:], b.Source[:]))
	})
}

// Numbers is a set of snapshots' numbers: ranges, ascending, with gaps between.
type Numbers []numbers

type numbers struct{ first, last uint64 }

// add takes in a number that lies behind all others, or among the last.
func (s Numbers) add(n uint64) Numbers {
	if at := len(s) - 1; at >= 0 && n <= s[at].last+1 {
		s[at].last = max(s[at].last, n)
		return s
	}
	return append(s, numbers{n, n})
}

// and gives the numbers of both.
func (s Numbers) and(other Numbers) Numbers {
	all := slices.Concat(s, other)
	slices.SortFunc(all, func(a, b numbers) int { return cmp.Compare(a.first, b.first) })
	var out Numbers
	for _, r := range all {
		if at := len(out) - 1; at >= 0 && r.first <= out[at].last+1 {
			out[at].last = max(out[at].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Count tells how many they are.
func (s Numbers) Count() (n uint64) {
	for _, r := range s {
		n += r.last - r.first + 1
	}
	return n
}

// String writes them as "1-40,42".
func (s Numbers) String() string {
	var parts []string
	for _, r := range s {
		text := strconv.FormatUint(r.first, 10)
		if r.last > r.first {
			text += "-" + strconv.FormatUint(r.last, 10)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ",")
}

func parseNumbers(text string) (s Numbers, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, several := strings.Cut(part, "-")
		if !several {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 64)
		to, err2 := strconv.ParseUint(last, 10, 64)
		if err != nil || err2 != nil || from == 0 || to < from || len(s) > 0 && from <= s[len(s)-1].last {
			return nil, false
		}
		s = append(s, numbers{from, to})
	}
	return s, true
}

// Watch is a look at a vault by a machine that remembers earlier ones.
type Watch struct {
	*View
	// Forgot says why what the machine has seen before could not be read: then
	// nothing is known of losses. Nil otherwise.
	Forgot error

	memory *Memory
	file   string
}

// NewWatch looks at a vault, as Memory.Look does, with the memory in this file; see
// MemoryFile. Copies of a vault are held to what any of them has shown, but for
// archives, which lag behind by their nature: those have memories of their own.
func NewWatch(ctx context.Context, r Documents, d *snapshot.Descriptor, file, scope string) (*Watch, error) {
	w := &Watch{file: file}
	w.memory, w.Forgot = ReadMemory(w.file)
	var err error
	w.View, err = w.memory.Look(ctx, r, d, scope)
	return w, err
}

// Seen gives the newest snapshot of a chain that this machine remembers, the zero
// Head when it remembers none.
func (w *Watch) Seen(c Chain) Head { return w.memory.Heads[c] }

// Keep remembers what is new in the vault.
func (w *Watch) Keep() error {
	if !w.memory.Merge(w.View) {
		return nil
	}
	return w.write()
}

// Accept takes the vault as it is now, of whatever scope NewWatch was given, for
// all that there ever was.
func (w *Watch) Accept() error {
	w.memory.Accept(w.View)
	return w.write()
}

func (w *Watch) write() error {
	if err := w.memory.Write(w.file); err != nil {
		return fmt.Errorf("what this machine has seen of the vault could not be kept: %w", err)
	}
	return nil
}

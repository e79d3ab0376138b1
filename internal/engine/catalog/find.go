package catalog

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Latest is the spec of a source's newest snapshot.
const Latest = "latest"

// Filter selects snapshots. Empty fields select all.
type Filter struct {
	Host   string
	Path   string   // that protect it: it is one of their paths or below one
	Tags   []string // that bear all of them
	Type   tripod.SourceType
	Before time.Time // begun before it
}

// Select gives the live snapshots that fit, oldest first.
func (c *Catalog) Select(f Filter) []Snapshot {
	return slices.DeleteFunc(c.Snapshots(), func(s Snapshot) bool { return !f.fits(&s) })
}

// Newest gives the newest snapshot that fits, or NotFound; Corrupt when the log
// has snapshots and none can be used.
func (c *Catalog) Newest(f Filter) (Snapshot, error) {
	fit := c.Select(f)
	if len(fit) == 0 {
		if err := c.unusable(); err != nil {
			return Snapshot{}, err
		}
		return Snapshot{}, tripod.Errorf(tripod.NotFound, "snapshot: none%s", f.text()).WithHint("tripod snapshots lists what there is")
	}
	return fit[len(fit)-1], nil
}

// unusable says why a log that has problems has no snapshot at all, nil when it
// has one.
func (c *Catalog) unusable() error {
	var costly []Problem // that cost snapshots
	for _, p := range c.problems {
		if slices.ContainsFunc([]string{vault.RecordPrefix, vault.GrantPrefix, vault.CertificatePrefix}, func(kind string) bool { return strings.HasPrefix(p.Document, kind) }) {
			costly = append(costly, p)
		}
	}
	if len(c.live) > 0 || len(costly) == 0 {
		return nil
	}
	p := &costly[0]
	rest := ""
	if n := len(costly) - 1; n > 0 {
		rest = fmt.Sprintf(" (and %s)", tripod.Count(int64(n), "more problem"))
	}
	return tripod.Errorf(tripod.Corrupt, "no snapshot of this vault can be used: %s: %w%s", p.Document, p.Err, rest).
		WithHint("%s", tripod.HintOf(p.Err))
}

func (f *Filter) fits(s *Snapshot) bool {
	if f.Host != "" && f.Host != s.Label.Host || f.Type != 0 && f.Type != s.Record.Type ||
		!f.Before.IsZero() && !s.Record.Time.Before(f.Before) {
		return false
	}
	for _, t := range f.Tags {
		if !slices.Contains(s.Label.Tags, t) {
			return false
		}
	}
	return f.Path == "" || slices.ContainsFunc(s.Label.Paths, func(p string) bool { return protects(p, f.Path) })
}

func (f *Filter) text() string {
	var b strings.Builder
	for _, part := range []struct{ word, value string }{{"host", f.Host}, {"path", f.Path}, {"tags", strings.Join(f.Tags, ",")}} {
		if part.value != "" {
			fmt.Fprintf(&b, " with %s %s", part.word, part.value)
		}
	}
	return b.String()
}

// Who names the snapshots of one machine's source for people, as far as the log
// tells whose they are.
func (c *Catalog) Who(m tripod.MachineID, source tripod.SourceID) string {
	host := ""
	for _, s := range slices.Backward(c.live) {
		if s.Key.Machine != m {
			continue
		}
		if s.Key.Source == source {
			const most = 3
			paths := strings.Join(s.Label.Paths[:min(most, len(s.Label.Paths))], ", ")
			if len(s.Label.Paths) > most {
				paths += ", ..."
			}
			return fmt.Sprintf("%s (%s)", s.Label.Host, paths)
		}
		host = cmp.Or(host, s.Label.Host)
	}
	return fmt.Sprintf("%s (source %.8s)", cmp.Or(host, fmt.Sprintf("machine %.8s", m)), source)
}

// ParseSpec cuts SNAPSHOT[:PATH].
func ParseSpec(text string) (spec, path string) {
	spec, path, _ = strings.Cut(text, ":")
	return spec, path
}

// Find gives the live snapshot that spec names among those that fit: "latest"
// is the newest one, and else spec is the first digits of its id.
func (c *Catalog) Find(spec string, f Filter) (Snapshot, error) {
	if spec == Latest {
		return c.Newest(f)
	}
	return c.byID(spec, f)
}

// FindFor is Find for who wants one path of a snapshot: "latest" then is the
// newest one that holds files and protects it, if one does.
func (c *Catalog) FindFor(spec, path string, f Filter) (Snapshot, error) {
	if spec == Latest && path != "" && f.Type == 0 {
		narrow := f
		narrow.Type = tripod.Files
		if absolute(path) && f.Path == "" {
			narrow.Path = path
		}
		if len(c.Select(narrow)) > 0 {
			f = narrow
		}
	}
	return c.Find(spec, f)
}

// FindOnly is Find where a wrong guess would do harm: "latest" is Invalid when
// snapshots of several sources fit.
func (c *Catalog) FindOnly(spec string, f Filter) (Snapshot, error) {
	if hits := c.newestOfEach(f); spec == Latest && len(hits) > 1 {
		return Snapshot{}, tripod.Errorf(tripod.Invalid, "snapshot %s: could be of %d different sources", Latest, len(hits)).
			WithHint("name one by its id: %s", candidates(hits))
	}
	return c.Find(spec, f)
}

// Sources counts the sources that have snapshots that fit.
func (c *Catalog) Sources(f Filter) int { return len(c.newestOfEach(f)) }

// newestOfEach gives the newest snapshot that fits of each source: of each
// host, kind of source and set of protected paths.
func (c *Catalog) newestOfEach(f Filter) (hits []Snapshot) {
	seen := map[string]bool{}
	fit := c.Select(f)
	slices.Reverse(fit)
	for _, s := range fit {
		source := s.Label.Host + "\x00" + s.Record.Type.String() + "\x00" + strings.Join(slices.Sorted(slices.Values(s.Label.Paths)), "\x00")
		if !seen[source] {
			seen[source] = true
			hits = append(hits, s)
		}
	}
	return hits
}

func (c *Catalog) byID(spec string, f Filter) (Snapshot, error) {
	digits := strings.ToLower(spec)
	if digits == "" || len(digits) > 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return Snapshot{}, tripod.Errorf(tripod.Invalid, "snapshot %q: is no snapshot's id", spec).
			WithHint("give the first digits of an id that tripod snapshots lists, or %q", Latest)
	}
	var hits []Snapshot
	for _, s := range c.Select(f) {
		if s.named(digits) {
			hits = append(hits, s)
		}
	}
	switch {
	case len(hits) == 1:
		return hits[0], nil
	case len(hits) > 1:
		return Snapshot{}, tripod.Errorf(tripod.Invalid, "snapshot %s: could be %d of them", spec, len(hits)).
			WithHint("give more digits: %s", candidates(hits))
	case slices.ContainsFunc(c.forgotten, func(s Snapshot) bool { return s.named(digits) }):
		return Snapshot{}, tripod.Errorf(tripod.NotFound, "snapshot %s: was ordered to be forgotten", spec).
			WithHint("tripod snapshots lists what there is")
	}
	for i := range c.expired {
		if s := &c.expired[i]; s.named(digits) {
			return Snapshot{}, tripod.Errorf(tripod.NotFound, "snapshot %s: %s", spec, s.Because()).
				WithHint("tripod snapshots lists what there is, and with --all what expired")
		}
	}
	return Snapshot{}, tripod.Errorf(tripod.NotFound, "snapshot %s: there is none%s", spec, f.text()).WithHint("tripod snapshots lists what there is")
}

func (s *Snapshot) named(digits string) bool {
	return strings.HasPrefix(hex.EncodeToString(s.Hash[:]), digits)
}

func candidates(hits []Snapshot) string {
	const most = 5
	var parts []string
	for i, s := range hits {
		if i == most {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, fmt.Sprintf("%s (%s of %s: %s, %s)", s.ID, s.Record.Type, s.Label.Host, strings.Join(s.Label.Paths, " "),
			s.Record.Time.UTC().Format("2006-01-02 15:04 UTC")))
	}
	return strings.Join(parts, ", ")
}

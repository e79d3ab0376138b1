package fault

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
)

// forgery is something that whoever keeps a vault may try. It returns the name
// of the document that must be refused.
type forgery struct {
	name  string
	try   func(t *testing.T, w *damageWorld, s *mem.Store) (document string)
	loses int // snapshots that are not usable any more, for sure
}

// newest gives the newest record, its name and its bytes.
func (w *damageWorld) newest(t *testing.T, s *mem.Store) (*snapshot.Record, []byte) {
	t.Helper()
	names := slices.DeleteFunc(slices.Clone(w.objects), func(n string) bool { return kindOf(n) != "record" })
	slices.Sort(names)
	raw, err := content(s, names[len(names)-1])
	if err != nil {
		t.Fatal(err)
	}
	r, err := snapshot.ParseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r, raw
}

// grantOf gives the name of the grant of the nth snapshot.
func (w *damageWorld) grantOf(k snapshot.Key, n uint64) string {
	k.Seq = n
	at := slices.IndexFunc(w.objects, func(o string) bool { return strings.HasPrefix(o, vault.GrantPrefix+vault.KeyPath(k)) })
	return w.objects[at]
}

func put(t *testing.T, s *mem.Store, name string, b []byte) string {
	t.Helper()
	if err := s.Put(t.Context(), name, b); err != nil {
		t.Fatal(err)
	}
	return name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// another makes the record that would come next, changed, signed by key.
func (w *damageWorld) another(t *testing.T, s *mem.Store, key ed25519.PrivateKey, change func(*snapshot.Record)) string {
	t.Helper()
	r, raw := w.newest(t, s)
	r.Prev = snapshot.HashOf(raw)
	r.Key.Seq++
	r.Time = r.Time.Add(time.Hour)
	change(r)
	return put(t, s, vault.RecordName(r.Key), r.Sign(key))
}

func forgeries() []forgery {
	return []forgery{
		{"a record signed by a stranger", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			_, key, err := seal.NewSigner()
			must(t, err)
			return w.another(t, s, key, func(*snapshot.Record) {})
		}, 0},
		{"a record that follows another one than the newest", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			return w.another(t, s, w.machine.Sign, func(r *snapshot.Record) { r.Prev[0] ^= 1 })
		}, 0},
		{"a record that comes after missing ones", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			name := w.another(t, s, w.machine.Sign, func(r *snapshot.Record) { r.Key.Seq += 3 })
			r, _ := w.newest(t, s)
			_ = name
			r.Key.Seq++
			return vault.RecordName(r.Key) // the first one missing
		}, 0},
		{"a record of a machine that nobody enrolled", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			stranger, err := w.made.Company.NewMachine()
			must(t, err)
			w.another(t, s, stranger.Sign, func(r *snapshot.Record) { r.Key.Machine, r.Key.Seq = stranger.Machine, 1 })
			return vault.CertificateName(stranger.Machine)
		}, 0},
		{"a certificate that the company did not give", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			public, key, err := seal.NewSigner()
			must(t, err)
			i := snapshot.Invitation{Company: w.made.Company.ID, Key: public}
			c := snapshot.Certificate{Company: w.made.Company.ID, Machine: tripod.MachineID{1}, Key: public, Invitation: i.Encode(key)}
			return put(t, s, vault.CertificateName(c.Machine), c.Encode(key))
		}, 0},
		{"the grant of an older snapshot for a newer one", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			r, _ := w.newest(t, s)
			old, err := content(s, w.grantOf(r.Key, 1))
			must(t, err)
			must(t, s.Damage(w.grantOf(r.Key, r.Key.Seq), faulty.Replace(old)))
			return vault.GrantPrefix + vault.KeyPath(r.Key)
		}, 1},
		{"the newest record replaced by an older one", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			r, _ := w.newest(t, s)
			first := r.Key
			first.Seq = 1
			old, err := content(s, vault.RecordName(first))
			must(t, err)
			must(t, s.Damage(vault.RecordName(r.Key), faulty.Replace(old)))
			return vault.RecordName(r.Key)
		}, 1},
		{"an order to forget that a machine signed", func(t *testing.T, w *damageWorld, s *mem.Store) string {
			r, raw := w.newest(t, s)
			o := snapshot.Order{Company: w.made.Company.ID, Key: r.Key, Record: snapshot.HashOf(raw), Time: time.Unix(1_800_000_000, 0)}
			return put(t, s, vault.OrderName(r.Key), o.Encode(w.machine.Sign))
		}, 0},
	}
}

// TestForgeriesAreRefused lets whoever keeps the vault forge documents. Each is
// named as a problem and not used; everything else goes on.
func TestForgeriesAreRefused(t *testing.T) {
	w := newDamageWorld(t, seed(t))
	for _, f := range forgeries() {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			forged := w.good.Clone()
			document := f.try(t, w, forged)
			var v verdict
			err := w.look(t.Context(), forged, places{index: filepath.Join(w.dir, "forged")}, func(l looked) error {
				if err := w.examine(t.Context(), l, &v); err != nil {
					return err
				}
				return w.everythingElse(t.Context(), l, &v)
			})
			if err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(v.problems, func(p string) bool { return strings.HasPrefix(p, document) }) {
				t.Errorf("%s is not among the problems %q", document, v.problems)
			}
			known := 0
			for _, s := range v.snapshots {
				if slices.Contains(w.ids, s.ID) {
					known++
				}
			}
			if known != len(w.ids)-f.loses {
				t.Error(fmt.Errorf("%d of %d snapshots are left", known, len(w.ids)))
			}
		})
	}
}

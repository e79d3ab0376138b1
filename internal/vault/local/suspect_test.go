package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// TestWhatIsSuspectIsStoredAgain: a blob that was found damaged, and all that
// stands on it, counts as missing, also for the next one to open the index; it
// is stored again; and it is served when its pack is put right instead.
func TestWhatIsSuspectIsStoredAgain(t *testing.T) {
	for _, how := range []string{"Suspect", "CheckPacks"} {
		for _, node := range []bool{false, true} {
			w := vaulttest.NewWorld(1)
			s := newVault(t, w)
			dir := t.TempDir()
			d := w.Data(1, 500)
			under := w.Node(tripod.List, d)
			top := w.Node(tripod.Tree, under)
			v, err := local.Open(t.Context(), s, local.Options{IndexDir: dir})
			must(t, err)
			session, err := v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			put(t, session, d)
			pack := packsOf(t, s)[0]
			put(t, session, under)
			bad := d
			if node {
				bad = under
				for _, name := range packsOf(t, s) {
					if name != pack {
						pack = name
						break
					}
				}
			}
			put(t, session, top)
			must(t, session.Close())
			var whole []byte
			must(t, s.Damage(pack, func(b []byte) []byte {
				whole = append(whole, b...)
				b[len(bad.Frame)-1] ^= 1
				return b
			}))
			if how == "Suspect" {
				must(t, v.Suspect(t.Context(), vaulttest.IDs(bad)))
			} else {
				must(t, v.CheckPacks(t.Context(), 1, nil, func(string, tripod.ID, error) error { return nil }))
			}
			must(t, v.Close())

			// Its pack is put right: it is read without another look at packs.
			damaged := s.Clone()
			must(t, s.Damage(pack, faulty.Replace(whole)))
			v, err = local.Open(t.Context(), s, local.Options{IndexDir: dir})
			must(t, err)
			readBack(t, v, d, under, top)
			must(t, v.Close())

			v, err = local.Open(t.Context(), damaged, local.Options{IndexDir: dir})
			must(t, err)
			session, err = v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			sums, err := session.Have(t.Context(), vaulttest.IDs(bad, top))
			if err != nil || len(sums[0])+len(sums[1]) > 0 {
				t.Errorf("%s, node %v: damaged, and yet held: %v %v", how, node, sums, err)
			}
			if node {
				put(t, session, under)
			} else {
				put(t, session, d)
			}
			put(t, session, under, top)
			readBack(t, v, d, under, top)
			sums, err = session.Have(t.Context(), vaulttest.IDs(d, under, top))
			if err != nil || len(sums[0]) == 0 || len(sums[1]) == 0 || len(sums[2]) == 0 {
				t.Errorf("%s, node %v: stored again, and not held: %v %v", how, node, sums, err)
			}
			must(t, errors.Join(session.Close(), v.Close()))
		}
	}
}

// TestCheckTables finds what an index that knows the packs does not look at.
func TestCheckTables(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	v := open(t, s, t.TempDir())
	session := begin(t, v)
	put(t, session, w.Data(1, 500))
	put(t, session, w.Data(2, 500))
	must(t, session.Close())
	must(t, s.Put(t.Context(), "pack/mine", []byte("x")))
	pack := packsOf(t, s)[0]
	if pack == "pack/mine" {
		pack = packsOf(t, s)[1]
	}
	must(t, s.Damage(pack, func(b []byte) []byte { b[len(b)-30] ^= 1; return b }))
	for range 2 {
		told := map[string]error{}
		must(t, v.CheckTables(t.Context(), func(object string, err error) error { told[object] = err; return nil }))
		if len(told) != 2 || !errors.Is(told["pack/mine"], tripod.Invalid) || !errors.Is(told[pack], tripod.Corrupt) || len(v.Damaged()) != 1 {
			t.Errorf("told %v", told)
		}
	}
	readBack(t, v, w.Data(1, 500), w.Data(2, 500)) // the frames are whole
	stop := errors.New("enough")
	if err := v.CheckTables(t.Context(), func(string, error) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a report's error: %v", err)
	}
}

// TestWhatIsSuspectOutlivesTheIndex: a check counts for the next backup on this
// machine, though another process, such as a mount, has the index, now or then,
// and though the index is thrown away.
func TestWhatIsSuspectOutlivesTheIndex(t *testing.T) {
	type world struct {
		w   *vaulttest.World
		s   *mem.Store
		dir string
	}
	look := func(x world) *local.Vault {
		v, err := local.Open(t.Context(), x.s, local.Options{IndexDir: x.dir})
		must(t, err)
		must(t, v.Sync(t.Context())) // takes the index, if it is free
		return v
	}
	for name, between := range map[string]struct{ checkBeside, backupBeside, wiped bool }{
		"a mount while it is checked":     {checkBeside: true},
		"a mount while it is backed up":   {backupBeside: true},
		"a mount all the time":            {checkBeside: true, backupBeside: true},
		"the index is thrown away":        {wiped: true},
		"a mount, and then it is wiped":   {checkBeside: true, wiped: true},
		"nothing else happens in between": {},
	} {
		for _, how := range []string{"Suspect", "CheckPacks", "CheckTables"} {
			x := world{vaulttest.NewWorld(1), nil, t.TempDir()}
			x.s = newVault(t, x.w)
			d := x.w.Data(1, 500)
			v := look(x)
			session, err := v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			put(t, session, d)
			must(t, errors.Join(session.Close(), v.Close()))
			at := len(d.Frame) - 1
			must(t, x.s.Damage(packsOf(t, x.s)[0], func(b []byte) []byte {
				if how == "CheckTables" {
					b[len(b)-30] ^= 1
				}
				b[at] ^= 1
				return b
			}))

			var beside *local.Vault
			if between.checkBeside {
				beside = look(x)
			}
			v = look(x)
			switch how {
			case "Suspect":
				must(t, v.Suspect(t.Context(), vaulttest.IDs(d)))
			case "CheckPacks":
				must(t, v.CheckPacks(t.Context(), 1, nil, func(string, tripod.ID, error) error { return nil }))
			case "CheckTables":
				must(t, v.CheckTables(t.Context(), func(string, error) error { return nil }))
			}
			must(t, v.Close())
			if beside != nil && !between.backupBeside {
				must(t, beside.Close())
				beside = nil
			}
			if between.backupBeside && beside == nil {
				beside = look(x)
			}
			if between.wiped {
				found, err := filepath.Glob(filepath.Join(x.dir, "index-*"))
				if err != nil || len(found) != 1 {
					t.Fatal(found, err)
				}
				must(t, os.RemoveAll(found[0]))
			}
			v = look(x)
			session, err = v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			sums, err := session.Have(t.Context(), vaulttest.IDs(d))
			if err != nil || len(sums[0]) > 0 {
				t.Errorf("%s, %s: damaged, and yet held: %v %v", name, how, sums, err)
			}
			if put(t, session, d) == 0 {
				t.Errorf("%s, %s: not stored again", name, how)
			}
			must(t, errors.Join(session.Close(), v.Close()))
			if beside != nil {
				must(t, beside.Close())
			}

			// Healed: it is held, and nothing is left of the check.
			v = look(x)
			session, err = v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			sums, err = session.Have(t.Context(), vaulttest.IDs(d))
			if err != nil || len(sums[0]) == 0 {
				t.Errorf("%s, %s: stored again, and not held: %v %v", name, how, sums, err)
			}
			readBack(t, v, d)
			must(t, errors.Join(session.Close(), v.Close()))
			left, err := filepath.Glob(filepath.Join(x.dir, "suspect-*", "*"))
			if err != nil || len(left) > 0 {
				t.Errorf("%s, %s: left behind: %v %v", name, how, left, err)
			}
		}
	}
}

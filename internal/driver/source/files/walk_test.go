package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/sourcetest"
)

func TestConformance(t *testing.T) {
	for name, s := range both() {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			plant(t, root, "a/b/c=text", "a-b/x=", "a/z", "link->a/z", "dangling->nowhere", "empty/",
				"big="+strings.Repeat("0123456789", 30_000), "name\nwith newline", "\xff\xfe=raw", strings.Repeat("n", 255))
			entries := sourcetest.Tree(t, open(t, s, Options{Paths: []string{root}}))
			expect(t, below(entries, root),
				"a", "a-b", "big", "dangling", "empty", "link", "name\nwith newline", strings.Repeat("n", 255), "\xff\xfe",
				"a/b", "a/z", "a/b/c", "a-b/x")
		})
	}
}

// reference is the walk in its simplest form.
func reference(t interface{ Fatal(...any) }, root string) []string {
	var keys []string
	var visit func(dir string)
	visit = func(dir string) {
		entries, err := os.ReadDir(dir) // sorted
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			keys = append(keys, dir+"|"+e.Name()+"|"+e.Type().String())
		}
		for _, e := range entries {
			if e.IsDir() {
				visit(filepath.Join(dir, e.Name()))
			}
		}
	}
	visit(root)
	return keys
}

func drawTree(t *rapid.T, root string) {
	name := rapid.SampledFrom([]string{"a", "b", "a-b", "a b", "A", "a\x01", "\xff", "é", "z.o", "0"})
	depth := rapid.IntRange(1, 5)
	for range rapid.IntRange(0, 40).Draw(t, "files") {
		parts := rapid.SliceOfN(name, 1, depth.Draw(t, "depth")).Draw(t, "path")
		path := filepath.Join(append([]string{root}, parts...)...)
		// A name taken by a file cannot be a folder, and the other way round.
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		if rapid.Bool().Draw(t, "folder") {
			_ = os.Mkdir(path, 0o755)
		} else if _, err := os.Lstat(path); err != nil {
			_ = os.WriteFile(path, nil, 0o644)
		}
	}
}

// The walk gives what the simplest one gives, however the work is cut up and
// whoever does it.
func TestOrderProperty(t *testing.T) {
	for name, s := range both() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				root, err := os.MkdirTemp(t.TempDir(), "")
				if err != nil {
					rt.Fatal(err)
				}
				drawTree(rt, root)
				tree, err := newTree(Options{Paths: []string{root}, Workers: rapid.IntRange(1, 5).Draw(rt, "workers")}, s)
				if err != nil {
					rt.Fatal(err)
				}
				tree.batch = rapid.IntRange(1, 8).Draw(rt, "batch")
				tree.ahead = rapid.SampledFrom([]int{1, 10, 30, 1000}).Draw(rt, "ahead")
				var got []string
				err = tree.Walk(context.Background(), func(batch []source.Entry) error {
					if len(batch) > tree.batch {
						rt.Errorf("a batch of %d", len(batch))
					}
					for _, e := range batch {
						if p := "/" + e.Parent; p == root || strings.HasPrefix(p, root+"/") {
							kind := map[source.Type]string{source.Directory: "d---------", source.Regular: "----------"}[e.Type]
							got = append(got, p+"|"+e.Name+"|"+kind)
						}
					}
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
				if want := reference(rt, root); !slices.Equal(got, want) {
					rt.Fatalf("got  %q\nwant %q", got, want)
				}
			})
		})
	}
}

func TestProtectedPaths(t *testing.T) {
	base := t.TempDir()
	plant(t, base, "a/b/c/d", "a/b/e", "a/f", "g/h", "target/x", "link->target", "file=1", "li")
	cases := []struct {
		name  string
		paths []string
		want  []string
	}{
		{"one folder", []string{"a/b"}, []string{"a", "a/b", "a/b/c", "a/b/e", "a/b/c/d"}},
		{"one file", []string{"file"}, []string{"file"}},
		{"several", []string{"g", "a/b/c"}, []string{"a", "g", "a/b", "a/b/c", "a/b/c/d", "g/h"}},
		{"nested", []string{"a/b/c", "a"}, []string{"a", "a/b", "a/f", "a/b/c", "a/b/e", "a/b/c/d"}},
		{"twice", []string{"g", "g/"}, []string{"g", "g/h"}},
		{"file and its folder", []string{"a/f", "a"}, []string{"a", "a/b", "a/f", "a/b/c", "a/b/e", "a/b/c/d"}},
		{"the link itself", []string{"link"}, []string{"link"}},
		{"through a link", []string{"link/x"}, []string{"link", "link/x"}},
		{"names that begin alike", []string{"li", "link/x"}, []string{"li", "link", "link/x"}},
		{"a link and through it", []string{"link", "link/x"}, []string{"link", "target", "target/x"}},
		{"all and through a link", []string{".", "link/x"}, []string{
			"a", "file", "g", "li", "link", "target", "a/b", "a/f", "a/b/c", "a/b/e", "a/b/c/d", "g/h", "target/x",
		}},
	}
	for system, s := range both() {
		for _, c := range cases {
			t.Run(system+"/"+c.name, func(t *testing.T) {
				var paths []string
				for _, p := range c.paths {
					paths = append(paths, base+"/"+p)
				}
				entries := sourcetest.Tree(t, open(t, s, Options{Paths: paths}))
				expect(t, below(entries, base), c.want...)
				// Above lie the ancestors and nothing else.
				for i := range len(entries) - len(c.want) {
					if p := "/" + entries[i].Path(); p != "/" && p != base && !strings.HasPrefix(base, p+"/") {
						t.Errorf("%s is not on the way", p)
					}
				}
			})
		}
	}
}

func TestRelativePath(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "in/x")
	t.Chdir(root)
	entries := collect(t, open(t, newSystem(), Options{Paths: []string{"in/../in/"}}))
	expect(t, below(entries, root), "in", "in/x")
}

func TestMissingPaths(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "here")
	var heard told
	gone, here := root+"/gone/far", root+"/here"
	entries := collect(t, open(t, newSystem(), Options{Paths: []string{gone, here}, Watcher: heard.watcher()}))
	expect(t, below(entries, root), "here")
	expect(t, heard.warnings, gone[1:])
	if !errors.Is(heard.errs[0], tripod.NotFound) || !strings.Contains(heard.errs[0].Error(), gone) {
		t.Errorf("warning %v", heard.errs[0])
	}

	var silent told // the error says it all
	err := Walk(t.Context(), Options{Paths: []string{gone}, Watcher: silent.watcher()}, func([]source.Entry) error { return nil })
	if !errors.Is(err, tripod.NotFound) || tripod.HintOf(err) == "" || !strings.Contains(err.Error(), gone) || len(silent.errs) > 0 {
		t.Errorf("no path exists: %v, warnings %v", err, silent.errs)
	}
	for _, paths := range [][]string{nil, {""}, {"a\x00b"}} {
		if _, err := New(Options{Paths: paths}); !errors.Is(err, tripod.Invalid) {
			t.Errorf("paths %q: %v", paths, err)
		}
	}
}

func TestLinkIsNoted(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "link->/etc")
	var heard told
	collect(t, open(t, newSystem(), Options{Paths: []string{root + "/link"}, Watcher: heard.watcher()}))
	if len(heard.notes) != 1 || !strings.Contains(heard.notes[0], "link") {
		t.Errorf("notes %q", heard.notes)
	}
}

func TestExclusion(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a.o", "a.c", "build/x", "src/build", "src/deep/a.o", "src/keep/a.o", "cache/keep/y", "cache/z")
	list := filepath.Join(t.TempDir(), "excludes")
	plant(t, filepath.Dir(list), "excludes=# objects\n\n*.o\n")
	entries := collect(t, open(t, newSystem(), Options{
		// cache is excluded, but what was named in it is not, nor the way there.
		Paths:        []string{root, root + "/cache/keep"},
		ExcludeFiles: []string{list},
		Exclude:      []string{"build/", "!keep/*.o", "cache"},
	}))
	expect(t, below(entries, root),
		"a.c", "cache", "src", "cache/keep", "cache/keep/y",
		"src/build", "src/deep", "src/keep", "src/keep/a.o")
	if _, err := New(Options{Paths: []string{root}, Exclude: []string{"ok", "[z-a]"}}); !errors.Is(err, tripod.Invalid) || !strings.Contains(err.Error(), "[z-a]") {
		t.Errorf("a bad pattern: %v", err)
	}
	if _, err := New(Options{Paths: []string{root}, ExcludeFiles: []string{root + "/none"}}); !errors.Is(err, tripod.NotFound) {
		t.Errorf("no exclude file: %v", err)
	}
}

func TestNamedPathIsNeverExcluded(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "tmp/x", "tmp/tmp")
	entries := collect(t, open(t, newSystem(), Options{Paths: []string{root + "/tmp"}, Exclude: []string{"tmp", root}}))
	expect(t, below(entries, root), "tmp", "tmp/x")
}

func TestExcludeCaches(t *testing.T) {
	root := t.TempDir()
	tag := "CACHEDIR.TAG=" + cacheSignature
	plant(t, root, "cache/a", "cache/sub/b", "cache/"+tag+"\nmore", "false/a", "false/CACHEDIR.TAG=Signature: 0", "dir/CACHEDIR.TAG/x")
	o := Options{Paths: []string{root}, ExcludeCaches: true}
	for _, s := range both() {
		expect(t, below(collect(t, open(t, s, o)), root), "cache", "dir", "false",
			"cache/CACHEDIR.TAG", "dir/CACHEDIR.TAG", "dir/CACHEDIR.TAG/x", "false/CACHEDIR.TAG", "false/a")
	}
	o.Paths = append(o.Paths, root+"/cache/sub")
	expect(t, below(collect(t, open(t, newSystem(), o)), root+"/cache"), "CACHEDIR.TAG", "sub", "sub/b")
	o.ExcludeCaches = false
	expect(t, below(collect(t, open(t, newSystem(), o)), root+"/cache"), "CACHEDIR.TAG", "a", "sub", "sub/b")
}

func TestSkip(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "home/vault/pack", "home/x", "other->home/vault")
	for name, skip := range map[string]string{
		"path": root + "/home/vault", "through a link": root + "/other", "not there": root + "/home/nothing",
	} {
		t.Run(name, func(t *testing.T) {
			var heard told
			entries := collect(t, open(t, newSystem(), Options{Paths: []string{root + "/home"}, Skip: []string{skip}, Watcher: heard.watcher()}))
			if name == "not there" {
				expect(t, below(entries, root), "home", "home/vault", "home/x", "home/vault/pack")
				return
			}
			expect(t, below(entries, root), "home", "home/x")
			if len(heard.notes) != 1 || !strings.Contains(heard.notes[0], "home/vault") {
				t.Errorf("notes %q", heard.notes)
			}
		})
	}
}

// A name that is gone when it is its turn costs a warning, not the walk.
func TestVanishing(t *testing.T) {
	for name, s := range both() {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			plant(t, root, "a", "b", "c/x", "d/y")
			var heard told
			h := &hooked{system: s, listed: func(path string) error {
				if "/"+path == root {
					return errors.Join(os.Remove(root+"/b"), os.RemoveAll(root+"/c"))
				}
				return nil
			}}
			entries := collect(t, open(t, h, Options{Paths: []string{root}, Watcher: heard.watcher()}))
			expect(t, below(entries, root), "a", "d", "d/y")
			expect(t, heard.warnings, root[1:]+"/b", root[1:]+"/c")
			for _, err := range heard.errs {
				if !source.Vanished(err) || !strings.Contains(err.Error(), "vanished") {
					t.Errorf("warning %v", err)
				}
			}
		})
	}
}

func TestUnreadableFolder(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a/x", "b/y", "b/y2", "c/z")
	var heard told
	broken := errors.New("device failed")
	h := &hooked{
		system: newSystem(),
		opening: func(path string) error {
			if strings.HasSuffix(path, "/a") {
				return os.ErrPermission
			}
			return nil
		},
		listed: func(path string) error {
			if strings.HasSuffix(path, "/b") {
				return broken
			}
			return nil
		},
	}
	tree := open(t, h, Options{Paths: []string{root}, Watcher: heard.watcher()})
	tree.batch = 1 // what a listing has to say goes with its first batch
	// What could be read of b is kept.
	expect(t, below(collect(t, tree), root), "a", "b", "c", "b/y", "b/y2", "c/z")
	expect(t, heard.warnings, root[1:]+"/a", root[1:]+"/b")
	if !errors.Is(heard.errs[0], tripod.Denied) || tripod.HintOf(heard.errs[0]) == "" {
		t.Errorf("no permission: %v", heard.errs[0])
	}
	if !errors.Is(heard.errs[1], tripod.Unavailable) || !errors.Is(heard.errs[1], broken) {
		t.Errorf("broken: %v", heard.errs[1])
	}
}

// A user who swaps a folder for a link must not make a backup by root keep
// what lies behind it.
func TestSwappedForLink(t *testing.T) {
	for _, swap := range []string{"a/b", "a"} {
		t.Run(swap, func(t *testing.T) {
			root, secret := t.TempDir(), t.TempDir()
			plant(t, root, "a/b/mine", "c")
			plant(t, secret, "secret", "b/secret")
			var heard told
			h := &hooked{system: newSystem(), opening: func(path string) error {
				if !strings.HasSuffix(path, "/a/b") {
					return nil
				}
				return errors.Join(os.Rename(root+"/"+swap, root+"/was"), os.Symlink(secret, root+"/"+swap))
			}}
			entries := collect(t, open(t, h, Options{Paths: []string{root}, Watcher: heard.watcher()}))
			expect(t, below(entries, root), "a", "c", "a/b")
			expect(t, heard.warnings, root[1:]+"/a/b")
		})
	}
}

// A folder that another replaced by rename is read as it is now.
func TestSwappedFolder(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a/old", "new/new")
	var heard told
	h := &hooked{system: newSystem(), opening: func(path string) error {
		if !strings.HasSuffix(path, "/a") {
			return nil
		}
		return errors.Join(os.Rename(root+"/a", root+"/was"), os.Rename(root+"/new", root+"/a"))
	}}
	tree := open(t, h, Options{Paths: []string{root + "/a", root + "/x"}, Watcher: heard.watcher()})
	expect(t, below(collect(t, tree), root), "a", "a/new")
}

// Others change the tree all the time; whatever the walk gives is in order.
func TestRacing(t *testing.T) {
	root := t.TempDir()
	for i := range 20 {
		for j := range 20 {
			plant(t, root, fmt.Sprintf("%d/%d/%d", i%5, j%4, i*j))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			dir := fmt.Sprintf("%s/%d/%d", root, i%5, i%4)
			_ = os.RemoveAll(dir)
			_ = os.Mkdir(dir, 0o755)
			_ = os.WriteFile(dir+"/again", nil, 0o644)
			_ = os.Rename(dir, dir+"-moved")
		}
	}()
	tree := open(t, newSystem(), Options{Paths: []string{root}, Workers: 4})
	tree.batch, tree.ahead = 3, 50
	for range 50 {
		entries := collect(t, tree)
		for i := 1; i < len(entries); i++ {
			if source.Compare(entries[i-1].Parent, entries[i-1].Name, entries[i].Parent, entries[i].Name) >= 0 {
				t.Fatalf("%q comes after %q", entries[i].Path(), entries[i-1].Path())
			}
			if f, err := tree.Open(&entries[i]); err == nil {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	cancel()
	<-done
}

// Cancelling at any moment ends the walk and all it started.
func TestCancel(t *testing.T) {
	root := t.TempDir()
	for i := range 30 {
		plant(t, root, fmt.Sprintf("%d/%d/x", i%7, i))
	}
	for after := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		err := Walk(ctx, Options{Paths: []string{root}, Workers: 3}, func([]source.Entry) error {
			if seen++; seen > after {
				cancel()
			}
			return nil
		})
		if seen > after+1 {
			t.Errorf("%d batches after the end", seen-after-1)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		cancel()
	}
}

// However slow the caller is, the workers read ahead only so far, and they end
// with the walk.
func TestReadAheadIsBounded(t *testing.T) {
	root := t.TempDir()
	for i := range 300 {
		plant(t, root, fmt.Sprintf("%d/%d/%d/x", i%3, i%30, i))
	}
	var opened atomic.Int64
	var ended atomic.Bool
	h := &hooked{system: newSystem(), opening: func(string) error {
		opened.Add(1)
		if ended.Load() {
			t.Error("a folder is opened behind the walk's end")
		}
		return nil
	}}
	const workers = 4
	tree := open(t, h, Options{Paths: []string{root}, Workers: workers})
	tree.ahead = 10 * nodeCost
	given := map[string]bool{}
	for range 20 {
		clear(given)
		opened.Store(0)
		ended.Store(false)
		must(t, tree.Walk(t.Context(), func(batch []source.Entry) error {
			given[batch[0].Parent] = true
			runtime.Gosched()
			// Each worker may overshoot by the piece it holds.
			if ahead := int(opened.Load()) - len(given); ahead > 10+2*workers {
				t.Fatalf("%d folders ahead of the caller", ahead)
			}
			return nil
		}))
		enough := errors.New("enough")
		err := tree.Walk(t.Context(), func(batch []source.Entry) error {
			if strings.HasSuffix(batch[0].Parent, "/2") {
				return enough
			}
			return nil
		})
		ended.Store(true)
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// A walk that ends early waits for what its workers are doing.
func TestNobodyOutlivesTheWalk(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a/x", "b/x")
	synctest.Test(t, func(t *testing.T) {
		entered, hold := make(chan struct{}, 2), make(chan struct{})
		h := &hooked{system: newSystem(), opening: func(path string) error {
			if "/"+path == root {
				return nil
			}
			entered <- struct{}{}
			<-hold
			return nil
		}}
		tree := open(t, h, Options{Paths: []string{root}, Workers: 1})
		enough := errors.New("enough")
		returned := make(chan error, 1)
		go func() {
			returned <- tree.Walk(t.Context(), func(batch []source.Entry) error {
				if "/"+batch[0].Parent != root {
					return nil
				}
				<-entered // a worker reads ahead
				return enough
			})
		}()
		synctest.Wait()
		select {
		case err := <-returned:
			t.Errorf("the walk ended before its worker: %v", err)
		default:
		}
		close(hold)
		if err := <-returned; !errors.Is(err, enough) {
			t.Error(err)
		}
	})
}

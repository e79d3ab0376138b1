package fault

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// killed runs a command and kills it by SIGKILL after d, unless it has ended.
func killed(cmd *exec.Cmd, d time.Duration) (result, bool) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		return result{-1, "", err.Error()}, false
	}
	timer := time.AfterFunc(d, func() { _ = cmd.Process.Kill() }) // it may have ended
	_ = cmd.Wait()                                                // the exit code tells
	timer.Stop()
	code := cmd.ProcessState.ExitCode()
	return result{code, out.String(), errOut.String()}, code < 0
}

// subject is one of the things that are backed up while the program is killed.
type subject struct {
	name   string
	args   []string           // of the command, after backup
	change func(r *rand.Rand) // for the next snapshot
	now    func() sums        // what it holds, as a restore would give it
	stdin  func() io.Reader   // of a stream
	root   string             // where the independent reader puts it
}

// snap is an acknowledged snapshot.
type snap struct {
	id   string
	root string
	want sums
}

// killing is the state of the lane.
type killing struct {
	*machine
	r      *rand.Rand
	code   string
	snaps  []snap
	kills  int
	late   int           // runs that had ended before
	took   time.Duration // of the last whole backup
	excess int64         // most bytes that a kill has cost
}

// TestKillBackup kills backups of all kinds of source at random moments.
func TestKillBackup(t *testing.T) {
	s := seed(t)
	k := &killing{machine: newMachine(t), r: rand.New(rand.NewPCG(s, 10))}
	k.code = k.init()
	sources := []*subject{k.files("full", true), k.files("incremental", false), k.disk(), k.stream()}
	for _, src := range sources {
		k.whole(src)
	}
	want := size(4, 20, 1000)
	for i := 0; k.kills < want; i++ {
		k.once(sources[i%len(sources)])
	}
	k.must("verify")
	t.Logf("%d kills, %d came too late; %d snapshots; a kill cost %d bytes at most", k.kills, k.late, len(k.snaps), k.excess)
}

// files is a folder; a full one gets all new content each time, at a new place.
func (k *killing) files(name string, full bool) *subject {
	s := &subject{name: name}
	number := 0
	use := func(dir string) {
		s.args, s.root = []string{dir}, dir
		s.now = func() sums { return sumsOf(k.t, dir) }
	}
	dir := k.path("source", name)
	folder(k.t, k.r, dir, 200, 6, 5<<20)
	use(dir)
	s.change = func(r *rand.Rand) {
		if full {
			number++
			if err := os.RemoveAll(s.root); err != nil {
				k.t.Fatal(err)
			}
			use(k.path("source", name+fmt.Sprint(number)))
			folder(k.t, r, s.root, 200, 6, 5<<20)
			return
		}
		write(k.t, filepath.Join(dir, "large", fmt.Sprint(r.IntN(6))), noise(r, 6<<20))
		for range 5 {
			write(k.t, filepath.Join(dir, "d03", fmt.Sprintf("n%d", r.IntN(50))), noise(r, r.IntN(20_000)))
		}
	}
	return s
}

func (k *killing) disk() *subject {
	image := k.path("source", "disk.img")
	write(k.t, image, append(noise(k.r, 24<<20), make([]byte, 8<<20)...))
	return &subject{
		name: "disk", args: []string{"--disk", image}, root: "",
		change: func(r *rand.Rand) {
			f, err := os.OpenFile(image, os.O_WRONLY, 0)
			if err != nil {
				k.t.Fatal(err)
			}
			defer f.Close()
			for range 12 {
				if _, err := f.WriteAt(noise(r, 1<<20), r.Int64N(31<<20)); err != nil {
					k.t.Fatal(err)
				}
			}
		},
		now: func() sums { return k.one("disk.img", image) },
	}
}

func (k *killing) stream() *subject {
	var content []byte
	s := &subject{name: "stream", args: []string{"--stdin-name", "dump.sql"}}
	s.change = func(r *rand.Rand) { content = noise(r, 20<<20) }
	s.stdin = func() io.Reader { return bytes.NewReader(content) }
	s.now = func() sums {
		name := k.path("source", "dump.sql")
		write(k.t, name, content)
		return k.one("dump.sql", name)
	}
	s.change(k.r)
	return s
}

func (k *killing) one(name, file string) sums {
	sum, err := sumOf(file)
	if err != nil {
		k.t.Fatal(err)
	}
	return sums{name: sum}
}

func (k *killing) start(s *subject) *exec.Cmd {
	cmd := k.command(append([]string{"backup", "--json"}, s.args...)...)
	if s.stdin != nil {
		cmd.Stdin = s.stdin()
	}
	return cmd
}

// whole makes a backup that is not killed.
func (k *killing) whole(s *subject) {
	k.t.Helper()
	want := s.now()
	began := time.Now()
	r := wait(k.start(s))
	k.took = time.Since(began)
	if r.code != 0 {
		k.t.Fatalf("backup of %s: %v", s.name, r)
	}
	k.acknowledged(r, s, want)
}

func (k *killing) acknowledged(r result, s *subject, want sums) {
	k.t.Helper()
	var done struct {
		Snapshot string `json:"snapshot"`
	}
	k.decode(r, &done)
	k.snaps = append(k.snaps, snap{done.Snapshot, s.root, want})
}

// once changes a source, kills its backup and looks what is left.
func (k *killing) once(s *subject) {
	k.t.Helper()
	s.change(k.r)
	want, before := s.now(), k.stored()
	r, dead := killed(k.start(s), time.Duration(k.r.Int64N(int64(k.took*5/4)+1)))
	if !dead {
		if r.code != 0 {
			k.t.Fatalf("backup of %s: %v", s.name, r)
		}
		k.late++
		k.acknowledged(r, s, want)
		return
	}
	k.kills++
	k.intact(s, want)
	left := k.stored() - before
	k.whole(s)
	k.cheap(s, before, left)
}

// intact checks a vault whose writer was killed.
func (k *killing) intact(s *subject, want sums) {
	k.t.Helper()
	ids := k.snapshots()
	for i := range k.snaps {
		if i >= len(ids) || ids[i] != k.snaps[i].id {
			k.t.Fatalf("kill %d, %s: snapshot %s is gone; there are %v", k.kills, s.name, k.snaps[i].id, ids)
		}
	}
	switch len(ids) - len(k.snaps) {
	case 0:
	case 1: // the kill came after the commit: it is whole, then
		k.snaps = append(k.snaps, snap{ids[len(ids)-1], s.root, want})
		k.restores(ids[len(ids)-1], want)
	default:
		k.t.Fatalf("kill %d, %s: snapshots %v", k.kills, s.name, ids)
	}
	k.must("verify")
	some := k.snaps[k.r.IntN(len(k.snaps))]
	k.restores(some.id, some.want)
	n := k.r.IntN(len(k.snaps))
	if root := k.snaps[n].root; root != "" {
		k.opinion(k.code, n, root, k.snaps[n].want)
	}
}

// cheap checks that what was durable before a kill was not stored again.
func (k *killing) cheap(s *subject, before, left int64) {
	k.t.Helper()
	total := k.stored() - before
	incoming, err := os.ReadDir(filepath.Join(k.vault, ".incoming"))
	if err != nil || len(incoming) > 0 {
		k.t.Fatalf("kill %d, %s: %d files lie in .incoming, %v", k.kills, s.name, len(incoming), err)
	}
	var need int64
	switch s.name {
	case "full":
		need = 30<<20 + 3<<20
	case "incremental":
		need = 6<<20 + 1<<20
	case "disk":
		need = 24 << 20 // at most two blocks for each of the writes
	case "stream":
		need = 20<<20 + 1<<20
	}
	k.excess = max(k.excess, total-need)
	if total > need+slack {
		k.t.Errorf("kill %d, %s: %d bytes stored before and after, %d of them before; %d would do", k.kills, s.name, total, left, need)
	}
}

// slack is what a kill may cost at most: nothing that was durable is sent
// again, but the last bundle is cut elsewhere and nodes are made anew.
const slack = 2 << 20

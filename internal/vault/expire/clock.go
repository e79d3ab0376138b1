package expire

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tripod/internal/core/policy"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// Clock is how a machine tells the time to expiry.
type Clock struct {
	Wall time.Time
	// File is where this machine notes what it saw of the clock, for the next
	// time. It may be deleted: then less is proved. "" for nowhere.
	File string
	// Own is this machine, whose snapshots bear witness to nothing but its own
	// clock; zero when it makes none.
	Own tripod.MachineID
	// Right tells that someone vouches for the wall clock.
	Right bool
	// Boot gives the present boot of this machine and for how long it lasts; see
	// Booted. Nil for who does not know.
	Boot func() (boot string, up time.Duration)
}

func (c *Clock) read(seen time.Time, others []time.Time) (policy.Reading, error) {
	in := policy.Clock{Wall: c.Wall, Seen: seen, Mine: c.noted(), Others: others, Right: c.Right}
	if c.Boot != nil {
		in.Boot, in.Up = c.Boot()
	}
	return in.Read()
}

// Vouch notes that the wall clock is right, as someone has said who makes or
// changes a policy.
func (c *Clock) Vouch() error {
	vouched := *c
	vouched.Right = true
	reading, err := vouched.read(time.Time{}, nil)
	if err != nil {
		return err
	}
	return c.note(reading.Note)
}

// Booted tells which boot of this machine lasts for how long, by a clock that
// goes on in sleep and that nobody sets. boot is "" where that cannot be known.
func Booted() (boot string, up time.Duration) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0
	}
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return "", 0
	}
	seconds, _, _ := strings.Cut(string(text), " ")
	up, err = time.ParseDuration(seconds + "s")
	if err != nil {
		return "", 0
	}
	return strings.TrimSpace(string(id)), up
}

const privateFile, privateDir = 0o600, 0o700

// noted reads what was noted; what cannot be read is as good as nothing.
func (c *Clock) noted() *policy.Sight {
	if c.File == "" {
		return nil
	}
	content, err := os.ReadFile(c.File)
	if err != nil {
		return nil
	}
	s := new(policy.Sight)
	for line := range strings.Lines(string(content)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		ok := len(f) == 2
		if ok {
			switch f[0] {
			case "wall":
				s.Wall, err = time.Parse(time.RFC3339, f[1])
			case "proved":
				s.Proved, err = time.Parse(time.RFC3339, f[1])
			case "overruled":
				s.Overruled, err = time.Parse(time.RFC3339, f[1])
			case "boot":
				s.Boot = f[1]
			case "up":
				s.Up, err = time.ParseDuration(f[1])
			}
		}
		if !ok || err != nil {
			return nil
		}
	}
	if s.Wall.IsZero() || s.Proved.IsZero() {
		return nil
	}
	return s
}

func (c *Clock) note(s *policy.Sight) error {
	if c.File == "" {
		return nil
	}
	var b strings.Builder
	b.WriteString("# What this machine saw of the clock when it last applied the vault's retention. Without it less time is proved to have passed.\n")
	stamp := func(name string, t time.Time) {
		if !t.IsZero() {
			fmt.Fprintf(&b, "%s %s\n", name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	stamp("wall", s.Wall)
	stamp("proved", s.Proved)
	stamp("overruled", s.Overruled)
	if s.Boot != "" {
		fmt.Fprintf(&b, "boot %s\nup %s\n", s.Boot, s.Up)
	}
	if err := durable.MakeDir(filepath.Dir(c.File), privateDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.ReplaceFile(c.File, privateFile, []byte(b.String()))
}

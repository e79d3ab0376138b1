package restore

import (
	"os/user"
	"strconv"
	"sync"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// Bits of a mode.
const (
	setuid  = 0o4000
	setgid  = 0o2000
	special = 0o7000
)

// dress sets an entry's metadata on what h holds: owner, extended attributes,
// mode, times, in the only order that works, since a new owner clears the
// setuid bit and capabilities. now is what is known of it already; nil asks the
// system. What cannot be set is a warning about path, which is in the snapshot. The error is what asking gave.
func (j *job) dress(h handle, path string, e *tree.Entry, now *info) error {
	if now == nil {
		i, err := h.stat()
		if err != nil {
			return durable.Classify(err, "read", "metadata")
		}
		now = &i
	}
	mode := j.own(h, path, e, now)
	j.xattrs(h, path, e)
	if e.Type != tree.Symlink && (mode != now.perm() || len(e.Xattrs) > 0 || mode&special != 0) {
		if err := h.chmod(mode); err != nil {
			j.warn(path, durable.Classify(err, "set", "mode"))
		}
	}
	if e.Type == tree.Dir && e.Sec == 0 && e.Nsec == 0 {
		return nil // a folder above the protected paths, kept without its times
	}
	if err := h.times(e.Sec, e.Nsec); err != nil {
		j.warn(path, durable.Classify(err, "set", "time"))
	}
	return nil
}

// own sets the owner where it differs and gives the mode to set: a file that
// does not get its owner never gets the right to act as that owner.
func (j *job) own(h handle, path string, e *tree.Entry, now *info) (mode uint32) {
	want := j.owners.find(&e.Owner)
	if want.uid == now.uid && want.gid == now.gid {
		return e.Mode
	}
	if j.self.root {
		err := h.chown(want.uid, want.gid)
		if err == nil {
			return e.Mode
		}
		j.warn(path, durable.Classify(err, "set", "owner"))
	} else {
		j.warnOnce("owner", path, notRoot())
	}
	mode = e.Mode
	if want.uid != now.uid {
		mode &^= setuid
	}
	if want.gid != now.gid && e.Type != tree.Dir {
		mode &^= setgid
	}
	return mode
}

func (j *job) xattrs(h handle, path string, e *tree.Entry) {
	for _, x := range e.Xattrs {
		err := h.setXattr(x.Name, x.Value)
		switch {
		case err == nil:
		case noXattrs(err):
			j.warnOnce("xattr", path, durable.Classify(err, "set (this is told once)", "extended attribute "+x.Name))
		default:
			j.warn(path, durable.Classify(err, "set", "extended attribute "+x.Name))
		}
	}
}

func notRoot() error {
	return tripod.Errorf(tripod.Denied, "belongs to someone else; without root it stays yours (this is told once)").
		WithHint("restore as root to bring back owners")
}

// owners finds who an entry belongs to on this machine: by name first, because
// numbers differ between machines, then by number. It remembers.
type owners struct {
	numeric bool
	known   sync.Map // tree.Owner -> ids
}

type ids struct{ uid, gid uint32 }

func (o *owners) find(w *tree.Owner) ids {
	if got, ok := o.known.Load(*w); ok {
		if found, ok := got.(ids); ok {
			return found
		}
	}
	found := ids{w.UID, w.GID}
	if !o.numeric && w.User != "" {
		if u, err := user.Lookup(w.User); err == nil {
			found.uid = number(u.Uid, w.UID)
		}
	}
	if !o.numeric && w.Group != "" {
		if g, err := user.LookupGroup(w.Group); err == nil {
			found.gid = number(g.Gid, w.GID)
		}
	}
	o.known.Store(*w, found)
	return found
}

func number(text string, otherwise uint32) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return otherwise
	}
	return uint32(n)
}

package restore

import (
	"os/user"
	"strconv"
	"sync"

	"tripod/internal/core/tree"
)

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

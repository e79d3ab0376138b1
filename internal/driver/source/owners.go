package source

import (
	"os/user"
	"strconv"
	"sync"
)

// Owners tells the names of user and group ids, and remembers them: a lookup
// reads /etc/passwd or asks a server, and a tree has few owners but many
// entries. The zero value is ready; it may be used concurrently.
type Owners struct {
	users  sync.Map // uint32 -> string
	groups sync.Map
}

// User is the name of a user, "" when there is none.
func (o *Owners) User(uid uint32) string {
	return lookup(&o.users, uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

// Group is the name of a group, "" when there is none.
func (o *Owners) Group(gid uint32) string {
	return lookup(&o.groups, gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// lookup remembers failures too: an id without a name would be asked for again
// with every entry.
func lookup(known *sync.Map, id uint32, ask func(string) (string, error)) string {
	if name, ok := known.Load(id); ok {
		return name.(string)
	}
	name, err := ask(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		name = ""
	}
	known.Store(id, name)
	return name
}

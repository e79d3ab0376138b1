package listing

import (
	"fmt"
	"strconv"
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Entry is a file of a snapshot as JSON.
type Entry struct {
	Path    string   `json:"path"`
	PathRaw string   `json:"path_raw,omitempty"` // see terminal.Raw
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Mode    string   `json:"mode"`
	User    string   `json:"user,omitempty"`
	Group   string   `json:"group,omitempty"`
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Size    int64    `json:"size"`
	MTime   string   `json:"mtime"`
	Link    string   `json:"link,omitempty"`
	LinkRaw string   `json:"link_raw,omitempty"`
	Torn    bool     `json:"torn,omitempty"`
	Xattr   []string `json:"xattrs,omitempty"`
}

// Place is a folder or file of a snapshot as JSON.
type Place struct {
	Snapshot string `json:"snapshot"`
	Path     string `json:"path"`
	PathRaw  string `json:"path_raw,omitempty"`
}

// OfEntry is an entry for JSON, nil for none.
func OfEntry(e *tree.Entry) *Entry {
	if e == nil {
		return nil
	}
	j := &Entry{
		Path: "/" + e.Path(), Name: e.Name, Type: typeName(e.Type), Mode: fmt.Sprintf("%04o", e.Mode), User: e.Owner.User, Group: e.Owner.Group,
		UID: e.Owner.UID, GID: e.Owner.GID, Size: e.Size, MTime: modified(e).UTC().Format(time.RFC3339Nano), Link: e.Link, Torn: e.Torn,
	}
	j.PathRaw, j.LinkRaw = terminal.Raw(j.Path), terminal.Raw(j.Link)
	for _, x := range e.Xattrs {
		j.Xattr = append(j.Xattr, x.Name)
	}
	return j
}

// Long is an entry as ls -l shows it, under a name of the caller.
func Long(e *tree.Entry, name string) string {
	if e.Type == tree.Symlink {
		name += " -> " + e.Link
	}
	return fmt.Sprintf("%s %-8s %-8s %12s %s %s", modeText(e), owner(e.Owner.User, e.Owner.UID), owner(e.Owner.Group, e.Owner.GID), size(e), terminal.When(modified(e)), name)
}

// modified is when an entry's content last changed.
func modified(e *tree.Entry) time.Time { return time.Unix(e.Sec, int64(e.Nsec)) }

// size is an entry's size in bytes, or the numbers of a device.
func size(e *tree.Entry) string {
	switch e.Type {
	case tree.CharDevice, tree.BlockDevice:
		return fmt.Sprintf("%d, %d", e.Major, e.Minor)
	case tree.Regular:
		return tripod.Number(e.Size)
	}
	return "-"
}

func owner(name string, id uint32) string {
	if name != "" {
		return name
	}
	return strconv.FormatUint(uint64(id), 10)
}

// modeText is the mode as ls shows it.
func modeText(e *tree.Entry) string {
	letter, ok := map[tree.FileType]byte{
		tree.Regular: '-', tree.Dir: 'd', tree.Symlink: 'l', tree.Fifo: 'p', tree.Socket: 's', tree.CharDevice: 'c', tree.BlockDevice: 'b',
	}[e.Type]
	if !ok {
		letter = '?'
	}
	return terminal.Mode(letter, e.Mode)
}

func typeName(t tree.FileType) string {
	if n, ok := map[tree.FileType]string{
		tree.Regular: "file", tree.Dir: "folder", tree.Symlink: "symlink", tree.Fifo: "fifo", tree.Socket: "socket",
		tree.CharDevice: "character device", tree.BlockDevice: "block device",
	}[t]; ok {
		return n
	}
	return "unknown"
}

package terminal

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Entry is a file of a snapshot as JSON.
type Entry struct {
	Path    string   `json:"path"`
	PathRaw string   `json:"path_raw,omitempty"` // see Raw
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

// Raw gives the bytes of a name in base64 when JSON, which knows text alone, cannot
// tell them; else "". Names that JSON prints have it beside them.
func Raw(name string) string {
	if utf8.ValidString(name) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(name))
}

// RawAll is Raw of each name of a list, nil when JSON can tell them all.
func RawAll(names []string) (raw []string) {
	for i, n := range names {
		if b := Raw(n); b != "" {
			if raw == nil {
				raw = make([]string, len(names))
			}
			raw[i] = b
		}
	}
	return raw
}

// Describe is an entry for JSON, nil for none.
func Describe(e *tree.Entry) *Entry {
	if e == nil {
		return nil
	}
	j := &Entry{
		Path: "/" + e.Path(), Name: e.Name, Type: typeName(e.Type), Mode: fmt.Sprintf("%04o", e.Mode), User: e.Owner.User, Group: e.Owner.Group,
		UID: e.Owner.UID, GID: e.Owner.GID, Size: e.Size, MTime: Modified(e).UTC().Format(time.RFC3339Nano), Link: e.Link, Torn: e.Torn,
	}
	j.PathRaw, j.LinkRaw = Raw(j.Path), Raw(j.Link)
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
	return fmt.Sprintf("%s %-8s %-8s %12s %s %s", modeText(e), owner(e.Owner.User, e.Owner.UID), owner(e.Owner.Group, e.Owner.GID), EntrySize(e), When(Modified(e)), name)
}

// Modified is when an entry's content last changed.
func Modified(e *tree.Entry) time.Time { return time.Unix(e.Sec, int64(e.Nsec)) }

// EntrySize is an entry's size in bytes, or the numbers of a device.
func EntrySize(e *tree.Entry) string {
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
	return Mode(letter, e.Mode)
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

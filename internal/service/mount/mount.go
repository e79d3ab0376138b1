// Package mount shows all snapshots of a vault as one read-only file system:
//
//	DIR/HOST/2026-03-01_10.15.00/home/me/letter.odt
//	DIR/HOST/latest -> 2026-03-01_10.15.00
//
// Below a snapshot of files lie the paths that it protects, from the root on;
// in one of a disk or a stream, one file. Programs read them as they read any file;
// blobs are fetched, opened and checked when they are needed, and what is damaged
// is an input/output error.
//
// Options and the layout are in this file; fuse_unix.go answers the kernel,
// on Linux and macOS.
package mount

import (
	"path"
	"strings"

	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
)

// Options say what is shown, and where.
type Options struct {
	Dir       string // an empty folder that is there
	Snapshots []catalog.Snapshot
	Browser   *browse.Browser
	// AllowOther lets other users of the machine in, as far as the modes of
	// the files allow. Without it only whoever mounts sees anything.
	AllowOther bool
	Ready      func() // called once the file system can be used
}

// host is the snapshots of one host by the names of their folders.
type host struct {
	name      string
	snapshots []named // oldest first
}

type named struct {
	name     string
	snapshot catalog.Snapshot
}

const timeFormat = "2006-01-02_15.04.05" // no colon: it separates in too many places

// layout names the folders. Snapshots come oldest first; those of one second
// bear their ids.
func layout(snapshots []catalog.Snapshot) []*host {
	var hosts []*host
	byName := map[string]*host{}
	taken := map[string]bool{}
	for _, s := range snapshots {
		name := folderName(s.Label.Host)
		h := byName[name]
		if h == nil {
			h = &host{name: name}
			byName[name] = h
			hosts = append(hosts, h)
		}
		folder := s.Record.Time.Local().Format(timeFormat)
		if taken[name+"/"+folder] {
			folder += "-" + s.ID
		}
		taken[name+"/"+folder] = true
		h.snapshots = append(h.snapshots, named{folder, s})
	}
	return hosts
}

// folderName makes one component of a path of what a machine called itself.
func folderName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, text)
	if name == "" || name == "." || name == ".." {
		return "unknown"
	}
	return name
}

// contentName is the one file of a snapshot of a disk or a stream.
func contentName(s *catalog.Snapshot) string {
	name := s.Record.Type.String()
	if len(s.Label.Paths) == 1 {
		name = folderName(path.Base(strings.ReplaceAll(s.Label.Paths[0], `\`, "/")))
	}
	return name
}

func errBusy(dir string, err error) error {
	return tripod.Errorf(tripod.Conflict, "%s is still in use: %w", dir, err).
		WithHint("close what uses it (lsof +f -- %s), or detach it: umount -l %s", dir, dir)
}

func errMount(dir string, err error) error {
	return tripod.Errorf(tripod.Unavailable, "mount on %s: %w", dir, err).
		WithHint("this needs FUSE: /dev/fuse and the program fusermount3 (package fuse3), on macOS macFUSE")
}

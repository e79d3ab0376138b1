//go:build !linux

package durable

func (r *Root) renameNoReplace(from, to string) error { return r.linkAndRemove(from, to) }

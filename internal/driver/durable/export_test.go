package durable

// LinkAndRemove is the path taken where the system cannot rename without replacing.
func LinkAndRemove(r *Root, from, to string) error { return rootErr(r.linkAndRemove(from, to)) }

package index

// Unsettle makes the nodes that are not closed be looked at again, in the packs
// that have some: what they waited for may be there now.
func (x *Index) Unsettle() error {
	b := x.db.NewBatch()
	defer b.Close()
	return x.commit(b, b.Set([]byte{prefixUnsettled}, nil, nil))
}

// Package reach decides what becomes of a blob's stored copy while a vault
// collects what no snapshot needs any more: transitions without I/O, which the
// index applies and the collection drives.
//
//	            condemn              want                  put again
//	live   ->   condemned            live                  live
//	condemned   condemned            data: live            live
//	                                 node: missing
//
// Data that is condemned is as good as new when somebody wants it again: it
// needs nothing else. A node is not: what is below it may be swept already, so
// a condemned node is no longer closed, and counts as missing until it is put
// again on top of all that it needs.
//
// A condemned copy may be swept when no session is left that began before it
// was condemned: such a session may have been told that the vault has it.
// Later sessions are told only of what their asking revived. So nothing rests
// on a clock.
package reach

// Copy is the state of one stored copy of a blob.
type Copy struct {
	Node      bool // it may need other blobs
	Closed    bool // of a node: all below it is there, and live
	Suspect   bool // its bytes were found damaged
	Condemned bool // nothing that is live needs it
}

// Held reports whether the copy counts as there for who builds upon it.
func (c Copy) Held() bool { return !c.Suspect && !c.Condemned && (c.Closed || !c.Node) }

// Condemn is what becomes of a copy that a collection found unneeded.
func (c Copy) Condemn() Copy {
	c.Condemned, c.Closed = true, false
	return c
}

// Want is what becomes of a copy that somebody asks for in order to build upon
// it. revived says that it must be kept so before the answer is given.
func (c Copy) Want() (after Copy, revived bool) {
	if c.Condemned && !c.Node && !c.Suspect {
		c.Condemned = false
		return c, true
	}
	return c, false
}

// Close is what becomes of a node's copy when all that it needs is held.
func (c Copy) Close() Copy {
	c.Closed, c.Condemned = true, false
	return c
}

// Epoch counts condemnations and beginnings of sessions, in the order in which
// they happened in one process.
type Epoch uint64

// Sweepable reports whether what was condemned at an epoch may be swept while
// sessions that began at the given epochs last.
func Sweepable(condemned Epoch, sessions []Epoch) bool {
	for _, began := range sessions {
		if began < condemned {
			return false
		}
	}
	return true
}

package reach

import "testing"

func all() (copies []Copy) {
	for bits := range 16 {
		c := Copy{Node: bits&1 != 0, Closed: bits&2 != 0, Suspect: bits&4 != 0, Condemned: bits&8 != 0}
		if c.Closed && (!c.Node || c.Condemned) {
			continue // no such state
		}
		copies = append(copies, c)
	}
	return copies
}

func TestWhatIsCondemnedCountsAsMissing(t *testing.T) {
	for _, c := range all() {
		if c.Condemn().Held() || c.Condemn().Closed {
			t.Errorf("%+v counts as held when condemned", c)
		}
	}
}

func TestOnlyDataComesBackByBeingWanted(t *testing.T) {
	for _, c := range all() {
		after, revived := c.Condemn().Want()
		if want := !c.Node && !c.Suspect; revived != want || after.Held() != want {
			t.Errorf("%+v, condemned and wanted: %+v, revived %v", c, after, revived)
		}
		if after, revived := c.Want(); !c.Condemned && (revived || after != c) {
			t.Errorf("%+v, live and wanted: %+v, revived %v", c, after, revived)
		}
	}
}

func TestAClosedNodeIsLive(t *testing.T) {
	for _, c := range all() {
		if c.Node && !c.Suspect && !c.Condemn().Close().Held() {
			t.Errorf("%+v is not held when put again", c)
		}
	}
}

func TestNothingIsSweptUnderASessionThatMayCountOnIt(t *testing.T) {
	for _, x := range []struct {
		condemned Epoch
		sessions  []Epoch
		want      bool
	}{
		{3, nil, true},
		{3, []Epoch{4, 9}, true},
		{3, []Epoch{4, 2}, false},
		{0, []Epoch{1}, true},
	} {
		if got := Sweepable(x.condemned, x.sessions); got != x.want {
			t.Errorf("condemned at %d, sessions %v: %v", x.condemned, x.sessions, got)
		}
	}
}

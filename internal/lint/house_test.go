package lint

import (
	"os"
	"testing"
)

// rules is every rule of the house.
var rules = []rule{
	{"rings", checkRings},
	{"modules", checkModules},
	{"import groups", checkImportGroups},
	{"pure core", checkPure},
	{"quiet rings", checkQuiet},
	{"package comments", checkPackageComments},
	{"package names", checkPackageNames},
	{"no init", checkInit},
	{"package variables", checkVars},
	{"no sleeping tests", checkSleep},
	{"small interfaces", checkInterfaces},
	{"sizes", checkSizes},
	{"contexts", checkContexts},
	{"errors", checkErrors},
	{"capability ledger", checkLedger},
	{"documents", checkDocuments},
}

func TestHouse(t *testing.T) {
	tree, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if problems := r.check(tree); len(problems) > 0 {
				t.Errorf("%d found:%s", len(problems), sentences(problems))
			}
		})
	}
}

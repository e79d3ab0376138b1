package seal

import (
	"fmt"
	"io"
)

// What is secret prints as this word and nothing else, under every verb and in
// JSON: a forgotten line of debugging or a test's message never ends in a log
// as keys. Marshal is the one way out.
const hidden = "secret"

func hide(f fmt.State) { _, _ = io.WriteString(f, hidden) }

func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) Format(f fmt.State, _ rune)   { hide(f) }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

func (CompanyKeys) String() string               { return hidden }
func (CompanyKeys) GoString() string             { return hidden }
func (CompanyKeys) Format(f fmt.State, _ rune)   { hide(f) }
func (CompanyKeys) MarshalText() ([]byte, error) { return []byte(hidden), nil }

func (MachineKeys) String() string               { return hidden }
func (MachineKeys) GoString() string             { return hidden }
func (MachineKeys) Format(f fmt.State, _ rune)   { hide(f) }
func (MachineKeys) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// A sealer holds secrets in fields that fmt prints past their own methods.
func (*Sealer) String() string             { return hidden }
func (*Sealer) Format(f fmt.State, _ rune) { hide(f) }

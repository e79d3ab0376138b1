package durable

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// frozenUntil is the extended attribute that notes the time, in RFC 3339.
const frozenUntil = "user.tripod.locked-until"

// Freeze implements Freezer by the immutable attribute, which the kernel holds
// against root too for as long as nobody clears it. An attribute cannot be
// noted on an immutable file, so an extension clears the flag for a moment; the
// note stays throughout, for those who ask Frozen before they remove.
func (r *Root) Freeze(name string, until time.Time) error {
	f, err := r.openFlagged(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := setImmutable(f, false); err != nil {
		return err
	}
	note := []byte(until.UTC().Format(time.RFC3339Nano))
	if err := unix.Fsetxattr(int(f.Fd()), frozenUntil, note, 0); err != nil {
		return err
	}
	if err := setImmutable(f, true); err != nil {
		return err
	}
	return f.Sync()
}

// Frozen implements Freezer.
func (r *Root) Frozen(name string) (until time.Time, err error) {
	f, err := r.openFlagged(name)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	buf := make([]byte, 64)
	n, err := unix.Fgetxattr(int(f.Fd()), frozenUntil, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339Nano, string(buf[:n]))
}

// Thaw implements Freezer. It does not look at the time.
func (r *Root) Thaw(name string) error {
	f, err := r.openFlagged(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return setImmutable(f, false)
}

func (r *Root) openFlagged(name string) (*os.File, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	return f.(osFile).File, nil //nolint:forcetypeassert // Open returns nothing else
}

// immutableFlag is FS_IMMUTABLE_FL of the kernel's linux/fs.h.
const immutableFlag = 0x10

func setImmutable(f *os.File, on bool) error {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := flags &^ immutableFlag
	if on {
		want = flags | immutableFlag
	}
	if want == flags {
		return nil
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(want))
}

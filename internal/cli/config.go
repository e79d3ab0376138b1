package cli

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"

	"tripod/internal/core/tripod"
)

// configDir is where this machine keeps its keys: TRIPOD_CONFIG_DIR,
// $XDG_CONFIG_HOME/tripod, the system's place for configuration, or /etc/tripod
// for a service without a home.
func configDir() (string, error) {
	return place("TRIPOD_CONFIG_DIR", "XDG_CONFIG_HOME", os.UserConfigDir, "/etc/tripod", ".config")
}

// cacheDir is where what can be derived again lies: TRIPOD_CACHE_DIR,
// $XDG_CACHE_HOME/tripod, the system's place for caches, or /var/cache/tripod.
func cacheDir() (string, error) {
	return place("TRIPOD_CACHE_DIR", "XDG_CACHE_HOME", os.UserCacheDir, "/var/cache/tripod", ".cache")
}

func place(own, xdg string, user func() (string, error), service, inHome string) (string, error) {
	if dir := os.Getenv(own); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv(xdg); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", tripod.Errorf(tripod.Invalid, "%s: %q is not an absolute path", xdg, dir)
		}
		return filepath.Join(dir, "tripod"), nil
	}
	if runtime.GOOS == "windows" {
		dir, err := user()
		if err != nil {
			return "", tripod.Errorf(tripod.Invalid, "no place for configuration and caches: %w", err).WithHint("set %s", own)
		}
		return filepath.Join(dir, "tripod"), nil
	}
	// The same places on macOS as on Linux: who reads the manual finds them.
	if home := os.Getenv("HOME"); home != "" {
		return filepath.Join(home, inHome, "tripod"), nil
	}
	if os.Geteuid() == 0 {
		return service, nil
	}
	return "", tripod.Errorf(tripod.Invalid, "HOME is not set: no place for configuration and caches").WithHint("set HOME or %s", own)
}

func cacheOf(caches string, vault [16]byte) string {
	return filepath.Join(caches, hex.EncodeToString(vault[:]))
}

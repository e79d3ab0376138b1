package enginetest

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/core/tree"
)

// SourceTree is a tree like a large program's source: n files of some 18 KB in
// folders of 16, of text that compresses about as well.
func SourceTree(n int) []File {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible
	words := make([]string, 4000)
	for i := range words {
		words[i] = fmt.Sprintf("%s_%x", []string{"if", "return", "struct", "int", "dev", "buf", "len", "page"}[i%8], r.Uint32()>>(8+r.IntN(20)))
	}
	files := []File{Dir("")}
	var text strings.Builder
	for i := range n {
		dir := fmt.Sprintf("d%03d/s%02d", i/512, i/16%32)
		if i%512 == 0 {
			files = append(files, Dir(dir[:4]))
		}
		if i%16 == 0 {
			files = append(files, Dir(dir))
		}
		text.Reset()
		for size := int(r.ExpFloat64() * 18_000); text.Len() < size; {
			line := words[r.IntN(len(words))]
			text.WriteString("\tstatic " + line + "(" + words[r.IntN(200)] + ", NULL);\n")
			if r.IntN(3) == 0 {
				text.WriteString("\t/* " + words[r.IntN(50)] + " goes first, see Documentation */\n")
			}
		}
		f := Text(fmt.Sprintf("%s/f%05d.c", dir, i), text.String())
		own(&f)
		files = append(files, f)
	}
	return files
}

func own(f *File) {
	f.Owner = tree.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} //nolint:gosec // ids are 32 bits
}

// FolderOr reads the folder that the environment variable names, for measuring
// with real data, and gives otherwise() when it is not set.
func FolderOr(tb testing.TB, variable string, otherwise func() []File) []File {
	tb.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		return otherwise()
	}
	files := []File{Dir("")}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		switch {
		case d.IsDir():
			files = append(files, Dir(rel))
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f := Text(rel, string(b))
			own(&f)
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

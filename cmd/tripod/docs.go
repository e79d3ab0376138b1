package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tripod/internal/cli"
	"tripod/internal/driver/durable"
)

// writeDocs writes the reference and the man pages from the commands themselves.
func writeDocs(root *cobra.Command, dir string) error {
	reference, man := filepath.Join(dir, "reference"), filepath.Join(dir, "man")
	for _, d := range []string{reference, man} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return durable.Classify(err, "make directory", dir)
		}
	}
	var index strings.Builder
	index.WriteString("# Commands\n\nWritten by `tripod docs`. Each page is what `--help` says.\n\n| command | what it does |\n|---|---|\n")
	err := each(root, func(cmd *cobra.Command) error {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		fmt.Fprintf(&index, "| [%s](%s.md) | %s |\n", cmd.CommandPath(), name, cmd.Short)
		if err := os.WriteFile(filepath.Join(reference, name+".md"), []byte(markdown(cmd)), 0o644); err != nil {
			return durable.Classify(err, "write", dir)
		}
		return durable.Classify(os.WriteFile(filepath.Join(man, name+".1"), []byte(manPage(cmd)), 0o644), "write", dir)
	})
	if err != nil {
		return err
	}
	return durable.Classify(os.WriteFile(filepath.Join(reference, "README.md"), []byte(index.String()), 0o644), "write", dir)
}

// each visits a command and all that can be seen below it.
func each(cmd *cobra.Command, fn func(*cobra.Command) error) error {
	if err := fn(cmd); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if err := each(c, fn); err != nil {
			return err
		}
	}
	return nil
}

func describe(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short + "."
}

func markdown(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), describe(cmd), cmd.UseLine())
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```\n%s\n```\n", unindent(cmd.Example))
	}
	for _, set := range flagSets(cmd) {
		if set.flags.HasAvailableFlags() {
			fmt.Fprintf(&b, "\n## %s\n\n```\n%s```\n", set.title, set.flags.FlagUsages())
		}
	}
	if below := related(cmd); len(below) > 0 {
		b.WriteString("\n## See also\n\n")
		for _, c := range below {
			fmt.Fprintf(&b, "- [%s](%s.md): %s\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
		}
	}
	return b.String()
}

type flagSet struct {
	title string
	flags *pflag.FlagSet
}

func flagSets(cmd *cobra.Command) []flagSet {
	return []flagSet{{"Flags", cmd.NonInheritedFlags()}, {"Flags of every command", cmd.InheritedFlags()}}
}

func related(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	if cmd.HasParent() {
		all = append(all, cmd.Parent())
	}
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "help" {
			all = append(all, c)
		}
	}
	return all
}

func unindent(text string) string {
	return strings.TrimPrefix(strings.ReplaceAll(text, "\n  ", "\n"), "  ")
}

// manPage writes a page of section 1 in the macros of man(7).
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	fmt.Fprintf(&b, ".TH %q 1 \"\" \"tripod\" \"Tripod\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(name), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.SH DESCRIPTION\n", roff(cmd.UseLine()))
	for i, paragraph := range strings.Split(describe(cmd), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(paragraph) + "\n")
	}
	for _, set := range flagSets(cmd) {
		if !set.flags.HasAvailableFlags() {
			continue
		}
		fmt.Fprintf(&b, ".SH %s\n", strings.ToUpper(set.title))
		set.flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(flagLine(f)), roff(flagText(f)))
			}
		})
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(unindent(cmd.Example)))
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, m := range cli.ExitCodes() {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", m.Code, roff(m.Text))
	}
	if all := related(cmd); len(all) > 0 {
		var names []string
		for _, c := range all {
			names = append(names, roff(strings.ReplaceAll(c.CommandPath(), " ", "-"))+"(1)")
		}
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(names, ", "))
	}
	return b.String()
}

func flagText(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	return text
}

func flagLine(f *pflag.Flag) string {
	line := "--" + f.Name
	if f.Shorthand != "" {
		line = "-" + f.Shorthand + ", " + line
	}
	if value, _ := pflag.UnquoteUsage(f); value != "" {
		line += " " + value
	}
	return line
}

// roff escapes what the macros would take for theirs.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is all that one run of this program found.
type report struct {
	Started  time.Time         `json:"started"`
	CPUs     int               `json:"cpus"`
	Runs     int               `json:"runs"`
	Versions map[string]string `json:"versions"`
	Sections []section         `json:"sections"`
}

// A section is one table with its verdicts.
type section struct {
	Name     string     `json:"name"`
	Title    string     `json:"title"`
	Rows     []tableRow `json:"rows"`
	Verdicts []verdict  `json:"verdicts"`
	Note     string     `json:"note,omitempty"` // why there are no verdicts
}

// A tableRow is the median of one step of one tool.
type tableRow struct {
	Step string `json:"step"`
	Tool string `json:"tool"`
	sample
}

// A verdict is one goal: reached when the figure is not above it.
type verdict struct {
	What    string  `json:"what"`
	Figure  float64 `json:"figure"`
	Goal    float64 `json:"goal"`
	Reached bool    `json:"reached"`
	Detail  string  `json:"detail,omitempty"`
}

// below is the verdict on a figure that should stay at or under a goal.
func below(what string, figure, goal float64) verdict {
	return verdict{What: what, Figure: figure, Goal: goal, Reached: figure <= goal}
}

// A goal is a ratio that Tripod should reach: its figure in a step by the better
// peer's.
type goal struct {
	what, step string
	ratio      float64
	added      bool // compare bytes added, not seconds
}

func treeGoals() []goal {
	return []goal{
		{what: "full", step: full, ratio: 0.65},
		{what: "unchanged", step: unchanged, ratio: 0.35},
		{what: "1 % edited", step: edited, ratio: 0.5},
		{what: "restore", step: restore, ratio: 0.55},
		{what: "check", step: check, ratio: 0.5},
		{what: "vault size", step: full, ratio: 0.85, added: true},
		{what: "bytes added by the edit", step: edited, ratio: 1, added: true},
	}
}

// imageGoals are treeGoals but for two: an unchanged image costs the peers hardly
// more than their start, and its size leaves little to gain.
func imageGoals() []goal {
	goals := treeGoals()
	for i, g := range goals {
		switch g.what {
		case "unchanged":
			goals[i].ratio = 0.5
		case "vault size":
			goals[i].ratio = 0.95
		}
	}
	return goals
}

// peakGoal is the most memory that Tripod should need, in MB.
const peakGoal = 150

// newSection makes the table of a series.
func newSection(name, title string, s *series) section {
	sec := section{Name: name, Title: title}
	for _, step := range s.steps {
		for _, tool := range s.tools {
			if m, ok := s.of(step, tool); ok {
				sec.Rows = append(sec.Rows, tableRow{Step: step, Tool: tool, sample: m})
			}
		}
	}
	return sec
}

// fiveStepSection makes the table of a series and holds it against the goals.
func fiveStepSection(name, title string, s *series, goals []goal) section {
	sec := newSection(name, title, s)
	if _, ok := s.of(full, "tripod"); !ok {
		sec.Note = "No ratios: Tripod was not measured."
		return sec
	}
	for _, g := range goals {
		if v, ok := g.judge(s); ok {
			sec.Verdicts = append(sec.Verdicts, v)
		}
	}
	if len(sec.Verdicts) == 0 {
		sec.Note = "No ratios: neither restic nor kopia was measured."
	}
	var peak int64
	for _, step := range s.steps {
		if m, ok := s.of(step, "tripod"); ok {
			peak = max(peak, m.Peak)
		}
	}
	sec.Verdicts = append(sec.Verdicts, below("peak memory, MB", float64(peak)/1e6, peakGoal))
	return sec
}

// judge compares Tripod with the better of the peers that were measured; false
// when there is none.
func (g goal) judge(s *series) (verdict, bool) {
	own, ok := g.figure(s, "tripod")
	if !ok {
		return verdict{}, false
	}
	best, peer := 0.0, ""
	for _, tool := range s.tools {
		if f, ok := g.figure(s, tool); ok && tool != "tripod" && (peer == "" || f < best) {
			best, peer = f, tool
		}
	}
	if best <= 0 {
		return verdict{}, false
	}
	v := below(g.what+", ratio to "+peer, own/best, g.ratio)
	if g.added {
		v.Detail = fmt.Sprintf("%.1f MB / %.1f MB", own/1e6, best/1e6)
	} else {
		v.Detail = fmt.Sprintf("%.2f s / %.2f s", own, best)
	}
	return v, true
}

// figure is what the goal compares.
func (g goal) figure(s *series, tool string) (float64, bool) {
	m, ok := s.of(g.step, tool)
	if g.added {
		return float64(m.Added), ok
	}
	return m.Seconds, ok
}

// print writes the section as plain text.
func (sec section) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n\n", sec.Title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "step\ttool\tseconds\tCPU s\tpeak MB\tadded MB\tobjects\t")
	last := ""
	for _, r := range sec.Rows {
		step := r.Step
		if step == last {
			step = ""
		}
		last = r.Step
		added, objects := "", ""
		if r.Objects > 0 {
			added, objects = fmt.Sprintf("%.1f", float64(r.Added)/1e6), fmt.Sprint(r.Objects)
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.0f\t%s\t%s\t\n", step, r.Tool, r.Seconds, r.CPU, float64(r.Peak)/1e6, added, objects)
	}
	_ = w.Flush()
	if sec.Note != "" {
		fmt.Fprintf(out, "\n%s\n", sec.Note)
	}
	if len(sec.Verdicts) == 0 {
		return
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  goal\tfigure\tat most\t\t")
	for _, v := range sec.Verdicts {
		word := "reached"
		if !v.Reached {
			word = "NOT reached"
		}
		fmt.Fprintf(w, "  %s\t%.2f\t%.2f\t%s\t%s\n", v.What, v.Figure, v.Goal, word, v.Detail)
	}
	_ = w.Flush()
}

// begin notes the machine and the versions of the tools, and prints them.
func (r *report) begin(ctx context.Context, b *bench) {
	r.Started, r.CPUs, r.Runs = time.Now().UTC(), runtime.NumCPU(), b.runs
	r.Versions = map[string]string{}
	var all []string
	for _, t := range b.tools {
		version := "unknown version"
		if out, err := exec.CommandContext(ctx, t.binary, t.version...).Output(); err == nil && len(out) > 0 {
			version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
			version, _, _ = strings.Cut(version, " build")
		}
		r.Versions[t.name] = version
		all = append(all, t.name+" ("+version+")")
	}
	fmt.Printf("%s; %d CPUs; %s\n", strings.Join(all, ", "), r.CPUs, r.Started.Format(time.RFC3339))
}

// write stores the report as JSON.
func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
)

// drawer shows a run under way in one of three ways.
type drawer interface {
	draw(e run.Event)
	// line prints a line of its own beside what is drawn.
	line(text string)
	stop()
}

// Progress starts showing a run and gives what the run tells its events to. It
// ends with stopProgress.
func (c *Console) Progress() run.Progress {
	c.StopProgress()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.JSON && c.Quiet, c.Quiet:
		c.drawer = nil
	case c.JSON:
		c.drawer = &jsonLines{console: c, rate: newRate()}
	case IsTerminal(c.Err) && os.Getenv("TERM") != "dumb":
		c.drawer = newBar(c.Err)
	default:
		c.drawer = &plainLines{w: c.Err, rate: newRate(), last: time.Now()}
	}
	return func(e run.Event) {
		if e.Warning != nil {
			c.Warn(e.Item, e.Warning)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.drawer != nil && e.Warning == nil {
			c.drawer.draw(e)
		}
	}
}

func (c *Console) StopProgress() {
	c.mu.Lock()
	d := c.drawer
	c.drawer = nil
	c.mu.Unlock()
	if d != nil {
		d.stop()
	}
}

type jsonWarning struct {
	Type    string `json:"type"`
	V       int    `json:"v"`
	Item    string `json:"item,omitempty"`
	PathRaw string `json:"path_raw,omitempty"` // of Item, see Raw
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Warn tells that something is not as it should be; the command goes on and
// ends with exit code 3. item is what it is about, when err does not say so.
func (c *Console) Warn(item string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings++
	if c.JSON {
		c.PrintJSON(c.Err, jsonWarning{"warning", 1, item, Raw(item), tripod.KindOf(err).Error(), OneLine(err), tripod.HintOf(err)})
		return
	}
	text := OneLine(err)
	if item = Printable(item); item != "" && !strings.Contains(text, strings.TrimPrefix(item, "/")) {
		text = item + ": " + text
	}
	text = "warning: " + text
	if hint := tripod.HintOf(err); hint != "" {
		text += "\n  " + Printable(hint)
	}
	c.linef("%s", text)
}

// linef prints a line beside what is drawn; the lock is held.
func (c *Console) linef(format string, args ...any) {
	if c.drawer != nil {
		c.drawer.line(fmt.Sprintf(format, args...))
		return
	}
	fmt.Fprintf(c.Err, format+"\n", args...)
}

// rate measures bytes per second of the phase under way.
type rate struct {
	phase run.Phase
	start time.Time
	bytes int64
}

func newRate() *rate { return &rate{start: time.Now()} }

// of gives bytes per second and the seconds that remain, 0 when unknown.
func (r *rate) of(e run.Event) (perSecond float64, left time.Duration) {
	if e.Phase != r.phase {
		*r = rate{e.Phase, time.Now(), e.Bytes}
	}
	seconds := time.Since(r.start).Seconds()
	done := e.Bytes - r.bytes
	if seconds < 0.5 || done <= 0 {
		return 0, 0
	}
	perSecond = float64(done) / seconds
	if e.BytesTotal > e.Bytes && seconds > 2 {
		left = time.Duration(float64(e.BytesTotal-e.Bytes)/perSecond) * time.Second
	}
	return perSecond, left
}

// status puts an event into words.
func (r *rate) status(e run.Event) string {
	if e.Phase == run.Waiting || (e.Files == 0 && e.Bytes == 0) {
		return strings.TrimSpace(string(e.Phase) + " " + Printable(e.Item))
	}
	var parts []string
	if e.Files > 0 || e.FilesTotal > 0 {
		text := tripod.Count(e.Files, "file")
		if e.FilesTotal > 0 {
			text = tripod.Number(e.Files) + " of " + tripod.Count(e.FilesTotal, "file")
		}
		parts = append(parts, text)
	}
	bytes := Size(e.Bytes)
	if e.BytesTotal > 0 {
		bytes += " of " + Size(e.BytesTotal)
	}
	parts = append(parts, bytes)
	perSecond, left := r.of(e)
	if perSecond > 0 {
		parts = append(parts, Size(int64(perSecond))+"/s")
	}
	if left > 0 {
		parts = append(parts, Duration(left)+" left")
	}
	return string(e.Phase) + ": " + strings.Join(parts, ", ")
}

// plainLines prints a line every few seconds: for logs.
type plainLines struct {
	w    io.Writer
	rate *rate
	last time.Time
}

const plainEvery = 10 * time.Second

func (p *plainLines) draw(e run.Event) {
	if now := time.Now(); now.Sub(p.last) >= plainEvery {
		p.last = now
		p.line(p.rate.status(e))
	}
}

func (p *plainLines) line(text string) { fmt.Fprintln(p.w, text) }
func (p *plainLines) stop()            {}

// jsonLines prints an event a second as a JSON object.
type jsonLines struct {
	console *Console
	rate    *rate
	last    time.Time
}

type jsonProgress struct {
	Type        string  `json:"type"`
	V           int     `json:"v"`
	Phase       string  `json:"phase"`
	Files       int64   `json:"files"`
	FilesTotal  int64   `json:"files_total,omitempty"`
	Bytes       int64   `json:"bytes"`
	BytesTotal  int64   `json:"bytes_total,omitempty"`
	Stored      int64   `json:"stored,omitempty"`
	BytesPerSec float64 `json:"bytes_per_second,omitempty"`
	SecondsLeft float64 `json:"seconds_left,omitempty"`
	Item        string  `json:"item,omitempty"`
	PathRaw     string  `json:"path_raw,omitempty"`
}

func (j *jsonLines) draw(e run.Event) {
	now := time.Now()
	if now.Sub(j.last) < time.Second {
		return
	}
	j.last = now
	perSecond, left := j.rate.of(e)
	j.console.PrintJSON(j.console.Err, jsonProgress{
		"progress", 1, string(e.Phase), e.Files, e.FilesTotal, e.Bytes, e.BytesTotal, e.Stored,
		float64(int64(perSecond)), left.Seconds(), e.Item, Raw(e.Item),
	})
}

func (j *jsonLines) line(text string) {
	j.console.PrintJSON(j.console.Err, struct {
		Type    string `json:"type"`
		V       int    `json:"v"`
		Message string `json:"message"`
	}{"message", 1, text})
}
func (j *jsonLines) stop() {}

// bar draws a bar with its figures on a terminal.
type bar struct {
	container *mpb.Progress
	bar       *mpb.Bar
	mu        sync.Mutex
	rate      *rate
	event     run.Event
}

const barWidth = 24

func newBar(w io.Writer) *bar {
	b := &bar{rate: newRate()}
	b.container = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(120*time.Millisecond))
	filler := mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]").Build()
	b.bar = b.container.MustAdd(0, mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		if s.Total <= 0 {
			return nil // how much there is to do is not known yet
		}
		s.RequestedWidth = barWidth
		return filler.Fill(w, s)
	}), mpb.BarFillerTrim(), mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return b.text(s) })))
	return b
}

func (b *bar) text(s decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.event.Phase == "" {
		return ""
	}
	text := b.rate.status(b.event)
	if s.Total > 0 {
		text = fmt.Sprintf(" %3d%%  %s", min(100, 100*s.Current/s.Total), text)
	}
	return text
}

func (b *bar) draw(e run.Event) {
	b.mu.Lock()
	b.event = e
	b.mu.Unlock()
	b.bar.SetTotal(max(e.BytesTotal, 0), false)
	b.bar.SetCurrent(e.Bytes)
}

func (b *bar) line(text string) {
	_, _ = io.WriteString(b.container, text+"\n") // the terminal is gone
}

// stop takes the bar away: the result follows.
func (b *bar) stop() {
	b.bar.Abort(true)
	b.container.Wait()
}

package s3test

import (
	"bytes"
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Fake is an S3 server in memory with one bucket that keeps no versions. It is a
// transport as well, so that it also works where time is simulated.
type Fake struct {
	Bucket string
	// Lies makes it ignore conditions, as some servers do.
	Lies bool
	// Lost makes the answer to a request get lost after it was carried out.
	Lost func(r *http.Request) bool

	mu      sync.Mutex
	objects map[string][]byte
	before  func(w http.ResponseWriter, r *http.Request) bool
}

// Before sets what may answer a request in the server's place: it returns false
// then.
func (f *Fake) Before(answer func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = answer
}

// NewFake returns a server with an empty bucket.
func NewFake(bucket string) *Fake { return &Fake{Bucket: bucket, objects: map[string][]byte{}} }

// Keys are those of the objects, sorted.
func (f *Fake) Keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

// Set puts an object past all conditions.
func (f *Fake) Set(key, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = []byte(text)
}

// Get gives an object's bytes.
func (f *Fake) Get(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.objects[key])
}

// RoundTrip implements http.RoundTripper.
func (f *Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	if f.Lost != nil && f.Lost(r) {
		return nil, io.ErrUnexpectedEOF
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// Fail answers with an error of S3.
func Fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>the fake says so</Message></Error>", code)
}

func etag(data []byte) string { return fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(data))) }

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil && !before(w, r) {
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	switch q := r.URL.Query(); {
	case bucket != f.Bucket:
		Fail(w, http.StatusNotFound, "NoSuchBucket")
	case key == "" && q.Has("versioning"):
		_, _ = io.WriteString(w, "<VersioningConfiguration/>")
	case key == "" && r.Method == http.MethodGet:
		f.list(w, q.Get("prefix"))
	default:
		f.object(w, r, key)
	}
}

func (f *Fake) object(w http.ResponseWriter, r *http.Request, key string) {
	data, ok := f.objects[key]
	switch {
	case r.Method == http.MethodPut:
		f.put(w, r, key)
	case !ok && r.Method != http.MethodDelete:
		Fail(w, http.StatusNotFound, "NoSuchKey")
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("ETag", etag(data))
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		f.get(w, r, data)
	}
}

func (f *Fake) put(w http.ResponseWriter, r *http.Request, key string) {
	data, ok := f.objects[key]
	if match := r.Header.Get("If-Match"); !f.Lies && (r.Header.Get("If-None-Match") == "*" && ok || match != "" && (!ok || match != etag(data))) {
		Fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	body := []byte{}
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			Fail(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
	}
	f.objects[key] = body
	w.Header().Set("ETag", etag(body))
}

func (f *Fake) get(w http.ResponseWriter, r *http.Request, data []byte) {
	status := http.StatusOK
	if first, last, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"); ok {
		from, _ := strconv.Atoi(first)
		to, _ := strconv.Atoi(last)
		if from >= len(data) {
			Fail(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
			return
		}
		to = min(to, len(data)-1)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(data)))
		data, status = data[from:to+1], http.StatusPartialContent
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, bytes.NewReader(data)) // the client may have gone
	}
}

func (f *Fake) list(w http.ResponseWriter, prefix string) {
	type content struct {
		Key  string
		Size int
	}
	var result struct {
		XMLName  xml.Name `xml:"ListBucketResult"`
		Contents []content
	}
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if strings.HasPrefix(key, prefix) {
			result.Contents = append(result.Contents, content{key, len(f.objects[key])})
		}
	}
	_ = xml.NewEncoder(w).Encode(result) // the client may have gone
}

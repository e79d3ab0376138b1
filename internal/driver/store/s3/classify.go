package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"tripod/internal/core/tripod"
)

// responseOf gives what the server said, if err is an answer of it.
func responseOf(err error) minio.ErrorResponse {
	r, _ := errors.AsType[minio.ErrorResponse](err)
	return r
}

func codeOf(err error) string { return responseOf(err).Code }

func statusOf(err error) int { return responseOf(err).StatusCode }

// wordsOf gives the server's own words.
func wordsOf(err error) string {
	r := responseOf(err)
	return said(&r)
}

// isUnknown reports whether the server does not know a kind of request.
func isUnknown(err error) bool {
	return codeOf(err) == minio.NotImplemented || statusOf(err) == http.StatusNotImplemented || statusOf(err) == http.StatusMethodNotAllowed
}

// at is how messages name an object, or a prefix.
func (s *Store) at(name string) string {
	if name == "" {
		return s.place
	}
	return s.place + "/" + name
}

const (
	hintKeys   = "give the right ones: TRIPOD_S3_ACCESS_KEY and TRIPOD_S3_SECRET_KEY, or their _FILE"
	hintRights = "these keys need the rights to list the bucket and its versions, and to get, put and delete objects in it"
)

// fail classes what a request ended with; nil stays nil.
func (s *Store) fail(ctx context.Context, err error, op, name string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, classed := errors.AsType[*tripod.Error](err); classed {
		return err
	}
	what := op + " " + s.at(name)
	r := responseOf(err)
	if r.Code == "" && r.StatusCode == 0 {
		return unanswered(err, what)
	}
	return answered(&r, what)
}

// answer is what is made of a code or a status of the server.
type answer struct {
	kind tripod.ErrorKind
	text string
	hint string
}

// The answers that are several codes'. The server's own words are told where
// ours would say less, which %s stands for.
var (
	noObject  = answer{tripod.NotFound, "no such object", ""}
	badKey    = answer{tripod.Denied, "the server does not know the access key, or no longer", hintKeys}
	badClock  = answer{tripod.Denied, "the clocks of this machine and of the server differ too much", "set this machine's clock, best by NTP"}
	badRegion = answer{tripod.Denied, "the bucket is in another region", "name the region of the bucket: --s3-region"}
	full      = answer{tripod.Exhausted, "the server has no more room: %s", "make room there, or ask for a larger quota"}
	damaged   = answer{tripod.Unavailable, "the bytes did not arrive as they were sent: %s", ""}
	later     = answer{tripod.Unavailable, "the server is not able to now: %s", ""}
	atOnce    = answer{tripod.Unavailable, "somebody else writes it at the same time", ""}
	forbidden = answer{tripod.Denied, "the server does not allow it: %s", hintRights}
	unknown   = answer{tripod.Conflict, "the server does not know this request: %s", ""}
)

// answerOf classes an answer of the server. It never makes Invalid: the request
// was ours. A bucket that is gone is not NotFound, which would say that one
// object is missing.
func answerOf(r *minio.ErrorResponse) answer {
	if a, ok := map[string]answer{
		minio.NoSuchKey: noObject, minio.NoSuchVersion: noObject,
		minio.NoSuchBucket:       {tripod.Conflict, "the bucket is gone", "someone removed it, or its name or endpoint is wrong"},
		minio.PreconditionFailed: {tripod.Exists, "the name is taken", ""},
		"InvalidAccessKeyId":     badKey, "InvalidToken": badKey, "InvalidTokenId": badKey, "ExpiredToken": badKey, "ExpiredTokenException": badKey,
		"SignatureDoesNotMatch": {tripod.Denied, "the secret key is not that of the access key", hintKeys},
		"RequestTimeTooSkewed":  badClock, "RequestExpired": badClock,
		"AuthorizationHeaderMalformed": badRegion, "PermanentRedirect": badRegion, "TemporaryRedirect": badRegion, minio.InvalidRegion: badRegion,
		"QuotaExceeded": full, "XMinioAdminBucketQuotaExceeded": full, "XMinioStorageFull": full, "InsufficientCapacity": full, "EntityTooLarge": full,
		"ConditionalRequestConflict": atOnce, "OperationAborted": atOnce,
		"BadDigest": damaged, "IncompleteBody": damaged, "XAmzContentSHA256Mismatch": damaged, "InvalidDigest": damaged,
		"SlowDown": later, "SlowDownRead": later, "SlowDownWrite": later, "RequestTimeout": later, "Throttling": later, "ThrottlingException": later,
	}[r.Code]; ok {
		return a
	}
	if a, ok := map[int]answer{
		http.StatusNotFound: noObject, http.StatusUnauthorized: forbidden, http.StatusForbidden: forbidden,
		http.StatusMovedPermanently: badRegion, http.StatusTemporaryRedirect: badRegion,
		http.StatusNotImplemented: unknown, http.StatusMethodNotAllowed: unknown,
		http.StatusInsufficientStorage: full, http.StatusRequestTimeout: later, http.StatusTooManyRequests: later,
		http.StatusConflict: {tripod.Conflict, "%s", ""},
	}[r.StatusCode]; ok {
		return a
	}
	if r.StatusCode >= http.StatusInternalServerError {
		return later
	}
	return answer{tripod.Internal, "the server refused it: %s", ""}
}

func answered(r *minio.ErrorResponse, what string) error {
	a := answerOf(r)
	return tripod.Errorf(a.kind, "%s: %s", what, strings.ReplaceAll(a.text, "%s", said(r))).WithHint("%s", a.hint)
}

// said gives the server's own words, cut to a line's length.
func said(r *minio.ErrorResponse) string {
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, r.Code+" "+r.Message)
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return strings.ToValidUTF8(strings.TrimSpace(text), "?")
}

// unanswered classes a request without an answer.
func unanswered(err error, what string) error {
	switch {
	case isCertificate(err):
		return tripod.Errorf(tripod.Denied, "%s: the server's certificate is not to be trusted: %w", what, root(err)).
			WithHint("check the endpoint's name; a CA of your own is named by SSL_CERT_FILE")
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // lint:error package net/http has no other way to tell it
		return tripod.Errorf(tripod.Conflict, "%s: the server speaks plain HTTP, not HTTPS", what).
			WithHint("on a network you trust: --s3-insecure-http")
	}
	if lookup, ok := errors.AsType[*net.DNSError](err); ok && lookup.IsNotFound {
		return tripod.Errorf(tripod.Unavailable, "%s: no address is known for %s", what, lookup.Name).WithHint("check the endpoint and the network")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return tripod.Errorf(tripod.Unavailable, "%s: the connection broke off", what)
	}
	return tripod.Errorf(tripod.Unavailable, "%s: %w", what, root(err)).WithHint("check the endpoint, the network and whether the server runs")
}

func isCertificate(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.HostnameError](err)
	return ok
}

// root leaves out the method and the whole address that net/url puts in front.
func root(err error) error {
	if unwrapped := errors.Unwrap(err); unwrapped != nil {
		if _, ok := errors.AsType[interface {
			error
			Timeout() bool
			Temporary() bool
		}](unwrapped); ok {
			return unwrapped
		}
	}
	return err
}

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
	hintRegion = "name the region of the bucket: --s3-region"
)

// fail classes what a request ended with; nil stays nil. The server's words are
// only told where ours would say less.
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
	return answered(r, what, s.bucket)
}

// answered classes an answer of the server. It never makes Invalid: the request
// was ours.
func answered(r minio.ErrorResponse, what, bucket string) error {
	switch r.Code {
	case minio.NoSuchKey, minio.NoSuchVersion:
		return tripod.Errorf(tripod.NotFound, "%s: no such object", what)
	case minio.NoSuchBucket:
		// Not NotFound, which would say that one object is missing.
		return tripod.Errorf(tripod.Conflict, "%s: the bucket %s is gone", what, bucket).
			WithHint("someone removed it, or its name or endpoint is wrong")
	case minio.PreconditionFailed:
		return tripod.Errorf(tripod.Exists, "%s: the name is taken", what)
	case "InvalidAccessKeyId", "InvalidToken", "InvalidTokenId", "ExpiredToken", "ExpiredTokenException":
		return tripod.Errorf(tripod.Denied, "%s: the server does not know the access key, or no longer", what).WithHint(hintKeys)
	case "SignatureDoesNotMatch":
		return tripod.Errorf(tripod.Denied, "%s: the secret key is not that of the access key", what).WithHint(hintKeys)
	case "RequestTimeTooSkewed", "RequestExpired":
		return tripod.Errorf(tripod.Denied, "%s: the clocks of this machine and of the server differ too much", what).
			WithHint("set this machine's clock, best by NTP")
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", minio.InvalidRegion:
		return tripod.Errorf(tripod.Denied, "%s: the bucket is in another region", what).WithHint(hintRegion)
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "EntityTooLarge":
		return tripod.Errorf(tripod.Exhausted, "%s: the server has no more room: %s", what, said(r))
	case "ConditionalRequestConflict", "OperationAborted":
		return tripod.Errorf(tripod.Unavailable, "%s: somebody else writes it at the same time", what)
	case "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest":
		return tripod.Errorf(tripod.Unavailable, "%s: the bytes did not arrive as they were sent: %s", what, said(r))
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException":
		return tripod.Errorf(tripod.Unavailable, "%s: %s", what, said(r))
	}
	switch status := r.StatusCode; {
	case status == http.StatusNotFound:
		return tripod.Errorf(tripod.NotFound, "%s: no such object", what)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return tripod.Errorf(tripod.Denied, "%s: the server does not allow it: %s", what, said(r)).WithHint(hintRights)
	case status == http.StatusInsufficientStorage:
		return tripod.Errorf(tripod.Exhausted, "%s: the server has no more room: %s", what, said(r))
	case status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed:
		return tripod.Errorf(tripod.Conflict, "%s: the server does not know this request: %s", what, said(r))
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		return tripod.Errorf(tripod.Unavailable, "%s: %s", what, said(r))
	case status == http.StatusMovedPermanently || status == http.StatusTemporaryRedirect:
		return tripod.Errorf(tripod.Denied, "%s: the bucket is somewhere else", what).WithHint(hintRegion)
	case status == http.StatusConflict:
		return tripod.Errorf(tripod.Conflict, "%s: %s", what, said(r))
	}
	return tripod.Errorf(tripod.Internal, "%s: the server refused it: %s", what, said(r))
}

// said gives the server's own words, cut to a line's length.
func said(r minio.ErrorResponse) string {
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
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		// Package net/http has no other way to tell it.
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

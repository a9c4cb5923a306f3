package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"time"
)

// Token lets one host in, once. Its text is weft1.ID.SECRET.FINGERPRINT.
type Token struct {
	ID          string // finds the record; not secret
	Secret      string
	Fingerprint string // of the fleet's authority
}

const tokenVersion = "weft1"

// TokenRecord is what the server keeps of a token: enough to recognise it, not
// enough to use it.
type TokenRecord struct {
	Host    string    `json:"host"`
	UID     string    `json:"uid"`  // of the Host resource: a token does not outlive it
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Expires time.Time `json:"expires"`
}

// ErrToken is returned for a token that is unknown, used, expired or mistyped. It
// does not say which, so that guessing teaches nothing.
var ErrToken = errors.New("the token is not valid (unknown, used or expired): make another with `weft token create`")

// NewToken makes a token for the host of that name and UID, and the record to keep of it.
func NewToken(host, uid, fingerprint string, expires time.Time) (Token, TokenRecord) {
	t := Token{ID: randomText(9), Secret: randomText(32), Fingerprint: fingerprint}
	sum := sha256.Sum256([]byte(t.Secret))
	return t, TokenRecord{Host: host, UID: uid, Hash: sum[:], Expires: expires}
}

func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b)
}

// Text is what people pass to the agent. It is secret.
func (t Token) Text() string {
	return strings.Join([]string{tokenVersion, t.ID, t.Secret, t.Fingerprint}, ".")
}

// String, LogValue and MarshalText hide the secret, so that a token cannot reach a log
// or a message by accident, whatever their form.
func (t Token) String() string { return tokenVersion + "." + t.ID + ".…" }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// ParseToken reads the text of a token; white space around it is ignored.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != tokenVersion || len(parts[1]) != 12 || len(parts[2]) != 43 {
		return Token{}, errors.New("not a weft join token (weft1.ID.SECRET.FINGERPRINT)")
	}
	if sum, err := hex.DecodeString(parts[3]); err != nil || len(sum) != sha256.Size {
		return Token{}, errors.New("join token: the fingerprint at its end is not a SHA-256")
	}
	if _, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil {
		return Token{}, errors.New("join token: its id is damaged")
	}
	return Token{ID: parts[1], Secret: parts[2], Fingerprint: parts[3]}, nil
}

// Check says whether t is the token that r was kept of, at the time now.
func (r TokenRecord) Check(t Token, now time.Time) error {
	sum := sha256.Sum256([]byte(t.Secret))
	if subtle.ConstantTimeCompare(sum[:], r.Hash) != 1 || !now.Before(r.Expires) {
		return ErrToken
	}
	return nil
}

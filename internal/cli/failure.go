package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
)

// exitError carries an exit code. A nil err has been told already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return exitError{ExitUsage, fmt.Errorf(format, args...)}
}

func notConverged(format string, args ...any) error {
	return exitError{ExitNotConverged, fmt.Errorf(format, args...)}
}

// report tells what went wrong, one line per finding.
func (a *app) report(err error) {
	for _, line := range findings(err) {
		a.say("error: %s", line)
	}
}

func findings(err error) []string {
	var coded exitError
	if errors.As(err, &coded) && coded.err == nil {
		return nil
	}
	var wrong manifest.Errors
	if errors.As(err, &wrong) {
		lines := make([]string, len(wrong))
		for i, w := range wrong {
			lines[i] = w.Error()
		}
		return lines
	}
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return []string{err.Error()}
	}
	if lines := violations(answer); len(lines) > 0 {
		return lines
	}
	return []string{explainFailure(answer)}
}

// violations reads "Port red/web-9: spec.addresses[0]: …", one per violation.
func violations(answer *connect.Error) []string {
	var lines []string
	for _, d := range answer.Details() {
		value, err := d.Value()
		if err != nil {
			continue
		}
		list, ok := value.(*weftv1.Violations)
		if !ok {
			continue
		}
		for _, v := range list.GetViolations() {
			lines = append(lines, violation(v))
		}
	}
	return lines
}

func violation(v *weftv1.Violation) string {
	line := v.GetMessage()
	if v.GetField() != "" {
		line = v.GetField() + ": " + line
	}
	if v.GetKey().GetKind() != "" {
		line = manifest.KeyString(v.GetKey()) + ": " + line
	}
	return line
}

// explainFailure says what a failed call means for the person who made it.
func explainFailure(answer *connect.Error) string {
	var network *net.OpError
	if errors.As(answer, &network) && network.Op == "dial" {
		text := "nothing answers at " + network.Addr.String()
		switch {
		case errors.Is(network, fs.ErrPermission):
			text = "no permission for " + network.Addr.String() + ": be root or in the group weft-admins"
		case errors.Is(network, fs.ErrNotExist):
			text += " (no such socket): is weftd running on this host? Otherwise say --server or --agent"
		default:
			text += ": " + network.Err.Error()
		}
		return text
	}
	if errors.Is(answer, context.DeadlineExceeded) {
		return "no answer in time: " + answer.Message()
	}
	return answer.Message()
}

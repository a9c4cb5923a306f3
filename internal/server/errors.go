package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/server/convert"
	"github.com/weft-sdn/weft/internal/store"
)

// violationError carries broken rules to the client: the first in the message, all in the details.
func violationError(violations []intent.Violation) error {
	first := violations[0].String()
	if violations[0].Key.Kind == "" {
		first = violations[0].Message
	}
	if n := len(violations) - 1; n > 0 {
		first = fmt.Sprintf("%s (and %d more)", first, n)
	}
	err := connect.NewError(codeOf(violations), errors.New(first))
	if d, e := connect.NewErrorDetail(convert.WriteViolations(violations)); e == nil {
		err.AddDetail(d)
	}
	return err
}

func codeOf(violations []intent.Violation) connect.Code {
	reason := violations[0].Reason
	for _, v := range violations {
		if v.Reason != reason {
			return connect.CodeInvalidArgument
		}
	}
	switch reason {
	case intent.Conflict:
		return connect.CodeFailedPrecondition
	case intent.Missing:
		return connect.CodeNotFound
	}
	return connect.CodeInvalidArgument
}

// away makes ErrUnavailable of whatever ended the following of the store.
func away(err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// storeError says what a failure of the store means to the client.
func storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrUnavailable):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w; hosts keep forwarding, but nothing can be changed until it is back", err))
	case errors.Is(err, store.ErrTooLarge):
		return connect.NewError(connect.CodeResourceExhausted, err)
	case errors.Is(err, store.ErrConflict):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

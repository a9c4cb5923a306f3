package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// openCluster makes a client of an existing cluster. It does not wait for it: a
// server starts serving hosts from what it knows, and the store comes when it comes.
func openCluster(cfg Config) (*Store, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize: maxRequestBytes, BackoffWaitBetween: 50 * time.Millisecond,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(reconnect)},
		Logger:      quiet(cfg.Logger),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd cluster %s: %w", strings.Join(cfg.Endpoints, ","), err)
	}
	return &Store{client: c, where: strings.Join(cfg.Endpoints, ","), log: cfg.Logger}, nil
}

// reconnect is how soon a cluster that was away is found again. What gRPC does
// unless told would refuse changes for up to two minutes after its return.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// explain turns etcd's errors into ours.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var e rpctypes.EtcdError
	code := codes.Unknown
	if errors.As(err, &e) {
		code = e.Code()
	} else if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "too many operations in txn"):
		return fmt.Errorf("%w: split the set, or raise the cluster's --max-txn-ops to %d (%s)", ErrTooLarge, maxTxnOps, text)
	case strings.Contains(text, "request is too large"), code == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		return fmt.Errorf("%w: split the set, or raise the cluster's --max-request-bytes (%s)", ErrTooLarge, text)
	case code == codes.Unavailable, code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, clientv3.ErrNoAvailableEndpoints), strings.Contains(text, "database space exceeded"),
		strings.Contains(text, "request timed out"), strings.Contains(text, "leader"):
		return fmt.Errorf("%w: %s", ErrUnavailable, text)
	}
	return err
}

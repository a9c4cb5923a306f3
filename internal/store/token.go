package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// PutToken keeps value under id until ttl is over; etcd removes it then.
func (s *Store) PutToken(ctx context.Context, id string, value []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	lease, err := s.client.Grant(ctx, max(1, int64(ttl.Seconds())))
	if err != nil {
		return fmt.Errorf("keep token: %w", explain(err))
	}
	if _, err := s.client.Put(ctx, tokenPrefix+id, string(value), clientv3.WithLease(lease.ID)); err != nil {
		return fmt.Errorf("keep token: %w", explain(err))
	}
	return nil
}

// Token reads what is kept under id; ErrNoToken if nothing is.
func (s *Store) Token(ctx context.Context, id string) ([]byte, error) {
	res, err := s.get(ctx, tokenPrefix+id)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	if len(res.Kvs) == 0 {
		return nil, ErrNoToken
	}
	return res.Kvs[0].Value, nil
}

// TakeToken removes what is kept under id. Of several callers, exactly one gets
// it; the others get ErrNoToken.
func (s *Store) TakeToken(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := s.client.Delete(ctx, tokenPrefix+id)
	if err != nil {
		return fmt.Errorf("take token: %w", explain(err))
	}
	if res.Deleted == 0 {
		return ErrNoToken
	}
	return nil
}

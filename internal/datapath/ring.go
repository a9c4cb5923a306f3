package datapath

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf/ringbuf"
)

// readRing delivers what the programs put into a ring buffer until ctx ends, then closes the
// channel. Each row goes to one reader only; one that decode refuses goes to none.
func readRing[T any](ctx context.Context, s *Switch, ring string, decode func([]byte) (T, bool)) (<-chan T, error) {
	rd, err := ringbuf.NewReader(s.maps[ring])
	if err != nil {
		return nil, fmt.Errorf("read ring %s: %w", ring, err)
	}
	out := make(chan T, 64)
	stop := context.AfterFunc(ctx, func() { rd.Close() })
	go func() {
		defer close(out)
		defer stop()
		defer rd.Close()
		for {
			rec, err := rd.Read()
			if err != nil {
				return
			}
			row, ok := decode(rec.RawSample)
			if !ok {
				continue
			}
			select {
			case out <- row:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

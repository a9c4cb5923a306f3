package datapath

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

const batchRows = 4096

// putAll writes n rows in batches, many at once where there are many. What a batch
// refuses is written row by row, so that one bad row costs only itself; describe
// names it in the error. Row and describe are called from several goroutines.
func putAll[K, V any](m *ebpf.Map, n int, row func(int) (K, V), describe func(int) string) []rowError {
	var (
		failed []rowError
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   atomic.Int64
	)
	for range min(runtime.GOMAXPROCS(0), (n+batchRows-1)/batchRows) {
		wg.Go(func() {
			keys, values := make([]K, batchRows), make([]V, batchRows)
			for {
				at := int(next.Add(batchRows)) - batchRows
				if at >= n {
					return
				}
				size := min(batchRows, n-at)
				for i := range size {
					keys[i], values[i] = row(at + i)
				}
				bad := putBatch(m, keys[:size], values[:size])
				mu.Lock()
				for i, err := range bad {
					failed = append(failed, rowError{at + i, fmt.Errorf("%s: %w", describe(at+i), err)})
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// putBatch writes rows and returns what was wrong with which.
func putBatch[K, V any](m *ebpf.Map, keys []K, values []V) map[int]error {
	failed := map[int]error{}
	for at := 0; at < len(keys); {
		n := len(keys) - at
		if n >= 64 {
			done, err := m.BatchUpdate(keys[at:], values[at:], nil)
			at += done
			if err == nil {
				continue
			}
			n = min(n-done, 1)
		}
		for range n {
			if err := m.Put(keys[at], values[at]); err != nil {
				failed[at] = err
			}
			at++
		}
	}
	return failed
}

// rowError is what went wrong with the i-th row of a batch.
type rowError struct {
	i   int
	err error
}

// readAll calls visit for every row of a hash map.
func readAll[K, V any](m *ebpf.Map, visit func(K, V) error) error {
	keys, values := make([]K, batchRows), make([]V, batchRows)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read map %s: %w", m, err)
		}
		for i := range n {
			if err := visit(keys[i], values[i]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// walk is readAll for maps that have no batch operations.
func walk[K, V any](m *ebpf.Map, visit func(K, V) error) error {
	var (
		k K
		v V
	)
	it := m.Iterate()
	for it.Next(&k, &v) {
		if err := visit(k, v); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read map %s: %w", m, err)
	}
	return nil
}

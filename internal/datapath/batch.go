package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

const batchRows = 4096

// putAll writes rows in batches. What a batch refuses is written row by row, so
// that one bad row costs only itself; describe names it in the error.
func putAll[K, V any](m *ebpf.Map, keys []K, values []V, describe func(int) string) []rowError {
	var failed []rowError
	for at := 0; at < len(keys); {
		n := min(batchRows, len(keys)-at)
		if n >= 64 {
			done, err := m.BatchUpdate(keys[at:at+n], values[at:at+n], nil)
			at += done
			if err == nil {
				continue
			}
			n = min(n-done, 1)
		}
		for i := range n {
			if err := m.Put(keys[at+i], values[at+i]); err != nil {
				failed = append(failed, rowError{at + i, fmt.Errorf("%s: %w", describe(at+i), err)})
			}
		}
		at += n
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

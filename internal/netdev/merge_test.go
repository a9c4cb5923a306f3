package netdev

import (
	"errors"
	"testing"
)

func TestPrepareMergeIsMadeOnce(t *testing.T) {
	ground(t)
	out, in, err := PrepareMerge()
	if err != nil {
		t.Fatal(err)
	}
	again, peer, err := PrepareMerge()
	if err != nil || again != out || peer != in || in == out {
		t.Fatalf("devices %d and %d, then %d and %d: %v", out, in, again, peer, err)
	}
	if o, err := OffloadsOf(mergePeer); err != nil || !o.GRO {
		t.Errorf("offloads of the receiving end: %+v, %v", o, err)
	}
	for range 2 {
		if err := RemoveMerge(); err != nil {
			t.Error(err)
		}
	}
	if _, err := ByName(mergePeer); !errors.Is(err, ErrNoDevice) {
		t.Fatalf("the other end stayed: %v", err)
	}
}

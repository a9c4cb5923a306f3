package main

import "testing"

func TestBadChecksumsAreAddedUp(t *testing.T) {
	v4 := "Tcp: InSegs InCsumErrors\nTcp: 10 2\nUdp: InCsumErrors InDatagrams\nUdp: 3 9\n"
	v6 := "Ip6InReceives                   \t7\nUdp6InCsumErrors                \t4\n"
	got, err := sumCounters(pairs(v4)+v6, "InCsumErrors")
	if err != nil || got != 9 {
		t.Fatalf("%d, %v; want 2+3+4", got, err)
	}
	if _, err := sumCounters(v4, "InCsumErrors"); err == nil {
		t.Fatal("no counter was found and nobody complained")
	}
}

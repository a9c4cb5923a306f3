package main

import (
	"slices"
	"testing"
)

func TestMissingNamesPackagesOnceInOrder(t *testing.T) {
	needs := []need{{"b", "two"}, {"a", "one"}, {"/c", "two"}, {"d", "three"}}
	got := missing(needs, func(what string) bool { return what == "a" })
	if want := []string{"two", "three"}; !slices.Equal(got, want) {
		t.Fatalf("missing %q, want %q", got, want)
	}
	if got := missing(needs, func(string) bool { return true }); len(got) != 0 {
		t.Fatalf("missing %q though all is there", got)
	}
}

func TestPresent(t *testing.T) {
	for what, want := range map[string]bool{"go": true, "no-such-program-anywhere": false, "/etc/passwd": true, "/no/such/file": false} {
		if got := present(what); got != want {
			t.Errorf("present(%q) = %v", what, got)
		}
	}
}

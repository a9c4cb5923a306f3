package model

import (
	"fmt"
	"sort"
	"strings"
)

// VerdictInfo is what schema/verdicts.yaml says of a verdict.
type VerdictInfo struct {
	Verdict  Verdict
	Name     string // SPOOFED_MAC
	Stage    string // admit
	Class    string // terminal, quiet, policy, security, malformed, capacity, fault
	Sentence string // what happened
	Action   string // what the operator should do
}

// IsDrop reports whether v is a drop reason.
func (v Verdict) IsDrop() bool { return v >= 16 }

// Info describes v; an unknown number gets a description that says so.
func (v Verdict) Info() VerdictInfo {
	if i, ok := verdicts[v]; ok {
		return i
	}
	return VerdictInfo{Verdict: v, Name: fmt.Sprintf("VERDICT_%d", uint8(v)), Stage: "none", Class: "fault",
		Sentence: "A verdict that this version does not know.", Action: "Upgrade the command line."}
}

func (v Verdict) String() string { return v.Info().Name }

// VerdictByName finds a verdict by its name in any case.
func VerdictByName(name string) (VerdictInfo, bool) {
	for _, i := range verdicts {
		if strings.EqualFold(i.Name, name) {
			return i, true
		}
	}
	return VerdictInfo{}, false
}

// Verdicts lists all of them by number.
func Verdicts() []VerdictInfo {
	out := make([]VerdictInfo, 0, len(verdicts))
	for _, i := range verdicts {
		out = append(out, i)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Verdict < out[b].Verdict })
	return out
}

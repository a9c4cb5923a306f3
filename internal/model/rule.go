package model

// RuleID names a rule wherever people meet it: counters, drops, traces. It stays
// the same as long as the list has a rule of that name.
type RuleID struct {
	List Ref
	Rule string // "default inbound" and "default outbound" are a list's defaults
}

func (r RuleID) String() string { return r.List.String() + " " + r.Rule }

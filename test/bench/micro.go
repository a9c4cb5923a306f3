package main

import "strings"

// microResult is the program alone, without stack or devices.
type microResult struct {
	Name string  `json:"name"`
	NS   float64 `json:"ns_per_packet"`
}

func (r *report) addMicro() error { return nil }

func (r *report) microTable(b *strings.Builder) {}

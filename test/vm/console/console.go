// Package console is what the test and its virtual machine say to each other
// over the serial line: one Command in JSON per line down, one line of Prefix
// and an Answer in JSON up. Every other line is the kernel talking.
//
// A machine that is ready says an Answer with ID 0 before it is asked.
// It must never carry the tested traffic itself.
package console

import "net/netip"

// Prefix marks the lines that answer.
const Prefix = "guest> "

// Port of the machine's servers for exchanges (TCP) and echoes (UDP).
const Port = 7007

// Command is one line from the test.
type Command struct {
	ID        int            `json:"id"`                  // from 1
	Do        string         `json:"do"`                  // configure, features, counters, ping, exchange, datagrams
	Addresses []netip.Prefix `json:"addresses,omitempty"` // configure
	Gateways  []netip.Addr   `json:"gateways,omitempty"`  // configure
	To        netip.Addr     `json:"to,omitzero"`
	Bytes     int64          `json:"bytes,omitempty"` // exchange: each way; datagrams: of one
	Count     int            `json:"count,omitempty"` // datagrams
}

// Answer is one line to the test.
type Answer struct {
	ID    int    `json:"id"`
	Error string `json:"error,omitempty"`
	Text  string `json:"text,omitempty"`
}

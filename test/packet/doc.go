// Package packet proves that the loaded eBPF program does what docs/design/pipeline.md
// says: stories, one at least for every drop reason, and random packets under random
// policies, each run through the program and through internal/sim.
//
// Invariants: everything happens in a network namespace of the test process, with
// devices that carry nothing; no packet is sent. Root is needed; without it the
// tests fail. It must never take an expectation from the program.
package packet

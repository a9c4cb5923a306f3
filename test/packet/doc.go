// Package packet proves that the loaded eBPF program does what docs/design/pipeline.md
// says: stories, one at least for every drop reason, and random packets under random
// policies, each run through the program and through internal/sim; first in test runs
// of the program, then over devices that carry frames.
//
// Invariants: everything happens in network namespaces of the test process, which end
// with it. Root is needed; without it the tests fail. It must never take an
// expectation from the program.
package packet

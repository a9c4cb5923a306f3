package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The program alone, without stack and devices: from_port run by the kernel over
// a frame in memory. A test run comes from the loopback device, so that is the port.

// microResult is one case.
type microResult struct {
	Name    string  `json:"name"`
	Records int     `json:"records"`
	NS      float64 `json:"ns_per_packet"`
}

// fillResult is how long rows took into an empty table.
type fillResult struct {
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	MiB     float64 `json:"mib"` // that the kernel says the table takes
}

const (
	fillRuns = 5
	maxFill  = 0.6 // seconds
	maxMiB   = 110

	loopback   = 1       // ifindex, in every namespace
	neighbour  = 2       // ifindex of a port that frames are delivered to
	hotRuns    = 300_000 // over one frame
	coldFrames = 5_000   // run once each
	fewRecords = 2
	allRecords = 1_000_000
)

// addMicro times the local path, which leaves the frame as it is and so can be
// repeated, and the remote path once per frame.
func (r *report) addMicro() error {
	for _, records := range []int{fewRecords, allRecords} {
		sw, err := datapath.Open(datapath.Options{MaxRecords: allRecords + 2})
		if err != nil {
			return err
		}
		err = r.timeWith(sw, records)
		sw.Close()
		if err != nil {
			return fmt.Errorf("with %d records: %w", records, err)
		}
	}
	return nil
}

// addFill times how long all records take from rows into an empty table.
func (r *report) addFill() error {
	rows := microRows(allRecords)
	for range fillRuns {
		sw, err := datapath.Open(datapath.Options{MaxRecords: allRecords + 2})
		if err != nil {
			return err
		}
		runtime.GC()
		began := time.Now()
		err = sw.Apply(rows, true)
		took := time.Since(began)
		bytes, err2 := sw.Memory("record")
		sw.Close()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		r.Filled = append(r.Filled, fillResult{len(rows.Records), took.Seconds(), float64(bytes) / (1 << 20)})
	}
	return nil
}

func (r *report) loadTargets(b *strings.Builder) {
	var took, mib []float64
	for _, f := range r.Filled {
		took, mib = append(took, f.Seconds), append(mib, f.MiB)
	}
	if len(took) == 0 {
		return
	}
	t, m := spreadOf(took), spreadOf(mib)
	fmt.Fprintf(b, "| %d records into an empty table | seconds | | at most %.1f | %s | %s |\n", allRecords, maxFill, t, verdict(t.median <= maxFill))
	fmt.Fprintf(b, "| | MiB | | at most %d | %.0f | %s |\n", maxMiB, m.median, verdict(m.median <= maxMiB))
}

func (r *report) timeWith(sw *datapath.Switch, records int) error {
	if err := sw.Apply(microRows(records), true); err != nil {
		return err
	}
	local := microFrame(localCA)
	var hot []float64
	for range 5 {
		d, err := sw.Time(datapath.FromPort, local, hotRuns)
		if err != nil {
			return err
		}
		hot = append(hot, float64(d.Nanoseconds()))
	}
	r.Micro = append(r.Micro, microResult{"from_port, delivered locally, one flow", records, spreadOf(hot).median})
	var cold []float64
	for range coldFrames {
		d, err := sw.Time(datapath.FromPort, microFrame(remoteCA(rand.IntN(records))), 1)
		if err != nil {
			return err
		}
		cold = append(cold, float64(d.Nanoseconds()))
	}
	r.Micro = append(r.Micro, microResult{"from_port, encapsulated, each frame to a random record, timer included", records, spreadOf(cold).median})
	return nil
}

var localCA = netip.MustParseAddr("10.255.0.1")

func remoteCA(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func microRows(records int) table.Set {
	set := table.NewSet()
	pas := addrs(hostPA)
	source := netip.MustParseAddr("10.255.0.2")
	set.Ports[loopback] = table.Port{IfIndex: loopback, ID: 1, VSID: subnet, Network: 1, MAC: mac(0), PA: pas[0], MTU: nvgreMTU}
	set.Ports[neighbour] = table.Port{IfIndex: neighbour, ID: 2, VSID: subnet, Network: 1, MAC: mac(1), PA: pas[0], MTU: nvgreMTU}
	set.Records[table.RecordKey{VSID: subnet, CA: source}] = table.Record{MAC: mac(0), IfIndex: loopback, Port: 1}
	set.Records[table.RecordKey{VSID: subnet, CA: localCA}] = table.Record{MAC: mac(1), IfIndex: neighbour, Port: 2}
	for n := range records {
		set.Records[table.RecordKey{VSID: subnet, CA: remoteCA(n)}] = table.Record{MAC: model.MAC{2, 1, 0, byte(n >> 16), byte(n >> 8), byte(n)}, PA: pas[1], Port: model.PortID(100 + n)}
	}
	set.Peers[pas[1]] = table.Peer{PA: pas[1], IfIndex: loopback, MTU: underlayMTU}
	set.LocalPAs[pas[0]] = struct{}{}
	return set
}

// microFrame is a UDP datagram of 64 bytes from the port's guest.
func microFrame(to netip.Addr) []byte {
	src, dst := netip.MustParseAddr("10.255.0.2").As4(), to.As4()
	m, g := mac(1), mac(0)
	b := append(m[:], g[:]...)
	b = append(b, 0x08, 0x00, 0x45, 0, 0, 20+8+datagram, 0, 0, 0x40, 0, 64, 17, 0, 0)
	b = append(append(b, src[:]...), dst[:]...)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum+sum>>16))
	b = append(b, 0x13, 0x89, 0x13, 0x89, 0, 8+datagram, 0, 0)
	return append(b, make([]byte, datagram)...)
}

func (r *report) microTable(b *strings.Builder) {
	if len(r.Micro) == 0 {
		return
	}
	fmt.Fprint(b, "\n### The program alone (BPF_PROG_TEST_RUN)\n\n| case | records in the table | ns per packet |\n|---|---|---|\n")
	for _, m := range r.Micro {
		fmt.Fprintf(b, "| %s | %d | %.0f |\n", m.Name, m.Records, m.NS)
	}
}

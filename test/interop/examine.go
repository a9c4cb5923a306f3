// Package interop proves the wire against implementations that are not ours: one host
// has a switch of weft's, the other one Linux's own tunnel devices or Open vSwitch, and
// a guest behind each talks to the other.
//
// What a kernel has no module for is left out, and named; test/kernels runs the package
// where the modules are.
// It must never look into the switch: only what arrives counts, and what tshark says.
package interop

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// CapturePrefix begins a line of the test's output that holds what crossed the underlay,
// where there is no tshark to look at it: a name without spaces, and a pcap file in base64.
const CapturePrefix = "capture> "

// Report is what tshark makes of a capture.
type Report struct {
	Tunnelled int      // frames that are NVGRE or VXLAN with a whole frame inside
	Malformed []string // what it could not read
}

// Examine lets tshark read a pcap file.
func Examine(pcap []byte) (Report, error) {
	dir, err := os.MkdirTemp("", "weft-interop-")
	if err != nil {
		return Report{}, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "underlay.pcap")
	if err := os.WriteFile(file, pcap, 0o600); err != nil {
		return Report{}, err
	}
	malformed, err := tshark(file, "_ws.malformed || _ws.unreassembled || eth.fcs.status == 0")
	if err != nil {
		return Report{}, err
	}
	tunnelled, err := tshark(file, "(gre.key || vxlan.vni) && (ip.addr in {10.0.0.0/24} || ipv6.addr == fd00:a::/64)")
	return Report{len(tunnelled), malformed}, err
}

// tshark gives a line for each frame that the filter fits.
func tshark(file, filter string) ([]string, error) {
	cmd := exec.Command("tshark", "-n", "-r", file, "-Y", filter)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tshark %q: %w: %s", filter, err, said.String())
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }), nil
}

// pcapHeader begins a file of Ethernet frames (LINKTYPE_ETHERNET 1), in host order.
func pcapHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 1<<18)
	return binary.LittleEndian.AppendUint32(b, 1)
}

func pcapFrame(b, frame []byte, at time.Time) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()/1000))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	return append(b, frame...)
}

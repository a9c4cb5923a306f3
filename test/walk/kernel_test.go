package walk

import (
	"bytes"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// The loaded program does with the packets of the page what the page says.
func TestKernelWalksTheSameWay(t *testing.T) {
	runtime.LockOSThread() // for good: the thread is in another namespace from here on
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("needs root: %v", err)
	}
	for index, mac := range map[uint32]string{
		underlayIndex: "02:bb:00:00:00:02", redWeb1Index: "", blueWeb1Index: "", redWeb2Index: "", redDB1Index: "", blueWeb2Index: "",
	} {
		device(t, index, mac)
	}
	one, two := load(t, rows1()), load(t, rows2())
	for _, j := range journeys() { // no subtests: they would run on other threads
		want := sim.Switch{Set: rows1()}.FromPort(j.device, j.frame)
		got := run(t, one, datapath.FromPort, j.device, j.frame, want)[wire.EthernetLen:]
		if sent := want.Frame[wire.EthernetLen:]; !bytes.Equal(got, sent) {
			t.Errorf("%s: on the wire\n%swant\n%s", j.name, dump(got, outerParts), dump(sent, outerParts))
		}
		arrived := received(want.Frame)
		want = sim.Switch{Set: rows2()}.FromUplink(underlayIndex, arrived)
		if got := run(t, two, datapath.FromUplink, underlayIndex, arrived, want); !bytes.Equal(got, want.Frame) {
			t.Errorf("%s: received\n%swant\n%s", j.name, dump(got, innerParts), dump(want.Frame, innerParts))
		}
	}
}

// device makes a device with the index that the page gives it.
func device(t *testing.T, index uint32, mac string) {
	t.Helper()
	command := fmt.Sprintf("link add name d%d index %d", index, index)
	if mac != "" {
		command += " address " + mac
	}
	command += fmt.Sprintf(" type veth peer name x%d index %d", index, 1000+index)
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
	if out, err := exec.Command("ip", "link", "set", fmt.Sprintf("d%d", index), "up").CombinedOutput(); err != nil {
		t.Fatalf("device %d up: %v: %s", index, err, out)
	}
}

func load(t *testing.T, rows table.Set) *datapath.Switch {
	t.Helper()
	s, err := datapath.Open(datapath.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Apply(rows, false); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a program over a frame; verdict and device must be the oracle's.
func run(t *testing.T, s *datapath.Switch, p datapath.Program, index uint32, frame []byte, want sim.Result) []byte {
	t.Helper()
	got, err := s.Run(p, index, frame)
	if err != nil {
		t.Fatal(err)
	}
	if got.Verdict != want.Verdict || got.IfIndex != want.IfIndex {
		t.Fatalf("%s: %s out of device %d, want %s out of %d", p, got.Verdict, got.IfIndex, want.Verdict, want.IfIndex)
	}
	if len(got.Frame) != len(want.Frame) {
		t.Fatalf("%s: %d bytes, want %d", p, len(got.Frame), len(want.Frame))
	}
	return got.Frame
}

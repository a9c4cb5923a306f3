package pcapng

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 11, 22, 15, 0, 0, 123456789, time.UTC)
	// An ARP request, 42 bytes.
	frame, _ = hex.DecodeString("ffffffffffff02000000000108060001080006040001020000000001" + "0a000005" + "000000000000" + "0a000006")
)

func write(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, "weft test")
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	one, err := w.AddInterface("red/web-1 from-guest", "h1: as the guest sent it", 65535)
	check(err)
	check(w.WritePacket(Packet{Interface: one, Time: start, Length: 42, Data: frame, Comment: "weft: ANSWERED ü", Direction: Outbound}))
	two, err := w.AddInterface("red/web-1 dropped", "", 20)
	check(err)
	check(w.WritePacket(Packet{Interface: two, Time: start.Add(time.Nanosecond), Length: 42, Data: frame[:19]}))
	check(w.WriteStatistics(Statistics{Interface: two, Start: start, End: start.Add(time.Second), Received: 7, Dropped: 6}))
	if err := w.WritePacket(Packet{Interface: 2}); err == nil {
		t.Error("a packet of no interface was written")
	}
	if err := w.WritePacket(Packet{Interface: 0, Length: 1, Data: frame}); err == nil {
		t.Error("a packet longer than itself was written")
	}
	return b.Bytes()
}

// Every block says its length at both ends and is a multiple of four bytes.
func TestBlocksAreWhole(t *testing.T) {
	var kinds []uint32
	for b := write(t); len(b) > 0; {
		n := binary.LittleEndian.Uint32(b[4:])
		if n%4 != 0 || int(n) > len(b) || binary.LittleEndian.Uint32(b[n-4:]) != n {
			t.Fatalf("block of type %#x: length %d of %d", binary.LittleEndian.Uint32(b), n, len(b))
		}
		kinds = append(kinds, binary.LittleEndian.Uint32(b))
		b = b[n:]
	}
	want := []uint32{blockSection, blockInterface, blockPacket, blockInterface, blockPacket, blockStatistics}
	if len(kinds) != len(want) {
		t.Errorf("blocks %#x", kinds)
	}
}

// tshark reads what was written: names, times to the nanosecond, comments, lengths.
func TestTsharkReadsIt(t *testing.T) {
	read := exec.Command("tshark", "-r", "-", "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.time_epoch",
		"-e", "frame.len", "-e", "frame.cap_len", "-e", "frame.comment", "-e", "frame.packet_flags_direction", "-e", "arp.dst.proto_ipv4")
	read.Stdin = bytes.NewReader(write(t))
	out, err := read.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, out)
	}
	want := "red/web-1 from-guest|1795359600.123456789|42|42|weft: ANSWERED ü|0x00000002|10.0.0.6\n" +
		"red/web-1 dropped|1795359600.123456790|42|19|||\n"
	if string(out) != want {
		t.Errorf("tshark read\n%swant\n%s", out, want)
	}
}

func TestLongTextIsCutBetweenLetters(t *testing.T) {
	var b bytes.Buffer
	if _, err := NewWriter(&b, strings.Repeat("ü", 40000)+"\xff"); err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint16(b.Bytes()[26:])
	if n != 65534 {
		t.Errorf("option of %d bytes", n)
	}
}

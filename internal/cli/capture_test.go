package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func (f *answers) Capture(_ context.Context, r *connect.Request[weftv1.CaptureRequest], s *connect.ServerStream[weftv1.CaptureResponse]) error {
	f.asked = r.Msg
	for _, m := range f.captured {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// captureOfPing is an echo request that left and one that was dropped, and four
// packets lost.
func captureOfPing() []*weftv1.CaptureResponse {
	frame, _ := hex.DecodeString("020000000002020000000001" + "0800" + "4500001c000040004001" + "26ce" + "0a000005" + "0a000009" + "0800f7ff00000000")
	from := &weftv1.CaptureTarget{Host: "h1", Port: "red/web-1"}
	sent := &weftv1.CapturedPacket{TimeUnixNano: noon.UnixNano(), Point: "from-guest", Direction: "outbound", Port: "red/web-1",
		Verdict: uint32(model.VerdictEncapsulated), VerdictName: "ENCAPSULATED", OutDevice: "eth0", Length: 42, Frame: frame, Summary: "10.0.0.5 > 10.0.0.9 icmp type 8 code 0, 42 bytes"}
	dropped := &weftv1.CapturedPacket{TimeUnixNano: noon.UnixNano() + 1000, Point: "dropped", Direction: "outbound", Port: "red/web-1",
		Verdict: uint32(model.VerdictNoRecord), VerdictName: "NO_RECORD", Stage: "lookup", Vsid: 5001, Length: 42, Frame: frame,
		Summary: "10.0.0.5 > 10.0.0.9 icmp type 8 code 0, 42 bytes", Notes: []string{"a note"}}
	return []*weftv1.CaptureResponse{
		{From: from, Packets: []*weftv1.CapturedPacket{sent}, Counts: []*weftv1.CaptureCount{{Point: "from-guest", Seen: 1}}},
		{From: from, Packets: []*weftv1.CapturedPacket{dropped}, Counts: []*weftv1.CaptureCount{{Point: "from-guest", Seen: 1}, {Point: "dropped", Seen: 5, Lost: 4}}},
	}
}

func TestCaptureAsksWhatItWasTold(t *testing.T) {
	f := &answers{}
	serve(t, f)
	weft(t, "", "capture", "red/web-1", "blue/web-1", "--proto", "tcp", "--ca", "10.0.0.5,10.0.0.9", "--port", "443", "--reason", "no_record", "--snaplen", "96", "--rate", "7")
	want := &weftv1.CaptureRequest{Ports: []string{"red/web-1", "blue/web-1"}, Filter: &weftv1.CaptureFilter{Points: []string{"dropped"},
		Proto: "tcp", Addresses: []string{"10.0.0.5", "10.0.0.9"}, L4Port: 443, Reason: "no_record", Snaplen: 96, Rate: 7}}
	if d := cmp.Diff(want, f.asked, protocmp.Transform()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestCapturePrintsALineForEachPacket(t *testing.T) {
	t.Setenv("TZ", "UTC")
	serve(t, &answers{captured: captureOfPing()})
	at := noon.Local().Format("15:04:05")
	weft(t, "", "capture", "red/web-1").want(t, 0, at+`.000000 10.0.0.5 > 10.0.0.9 icmp type 8 code 0, 42 bytes  from-guest red/web-1 on h1: ENCAPSULATED out of eth0
`+at+`.000001 10.0.0.5 > 10.0.0.9 icmp type 8 code 0, 42 bytes  dropped red/web-1 on h1: NO_RECORD in stage lookup; VSID 5001; `+model.VerdictNoRecord.Info().Sentence+`; a note
`, "2 packets captured, 4 more matched and were lost\n")
	weft(t, "", "capture", "red/web-1", "--count", "1").want(t, 0, at+`.000000 10.0.0.5 > 10.0.0.9 icmp type 8 code 0, 42 bytes  from-guest red/web-1 on h1: ENCAPSULATED out of eth0
`, "1 packets captured, 0 more matched and were lost\n")
}

// tshark reads the file: two interfaces, comments, and the exact count of what was lost.
func TestCaptureWritesPcapng(t *testing.T) {
	serve(t, &answers{captured: captureOfPing()})
	file := filepath.Join(t.TempDir(), "x.pcapng")
	r := weft(t, "", "capture", "red/web-1", "-w", file)
	r.want(t, 0, "", "2 packets captured, 4 more matched and were lost\n")
	out, err := exec.Command("tshark", "-r", file, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "icmp.type", "-e", "frame.comment", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "red/web-1 from-guest|8|from-guest red/web-1 on h1: ENCAPSULATED out of eth0|\n" +
		"red/web-1 dropped|8|dropped red/web-1 on h1: NO_RECORD in stage lookup; VSID 5001; " + model.VerdictNoRecord.Info().Sentence + "; a note|\n"
	if string(out) != want {
		t.Errorf("tshark read\n%swant\n%s", out, want)
	}
	info, err := exec.Command("capinfos", file).Output()
	if err != nil || !strings.Contains(string(info), "Number of packets:   2") || !strings.Contains(string(info), "Number of stat entries = 1") {
		t.Errorf("capinfos: %v\n%s", err, info)
	}
	piped := weft(t, "", "capture", "red/web-1", "-w", "-")
	if !bytes.HasPrefix([]byte(piped.out), []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		t.Errorf("stdout begins with % x", piped.out[:4])
	}
}

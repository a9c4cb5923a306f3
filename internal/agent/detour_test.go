package agent

import (
	"log/slog"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// detoured is a switch that only tells which detour it was given.
type detoured struct {
	Switch
	taken string
}

func (d *detoured) Detour() string               { return datapath.DecapDX2 }
func (d *detoured) AttachDX2(uint32) error       { d.taken = "dx2"; return nil }
func (d *detoured) AttachVeth(_, _ uint32) error { d.taken = "veth"; return nil }

func TestTapsTakeTheDetourThatCanBeMade(t *testing.T) {
	done := make(chan struct{})
	go func() { // the thread, and with it the namespace, ends here
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("needs root: %v", err)
			return
		}
		sw := &detoured{}
		l := &loop{Agent: &Agent{sw: sw, log: slog.New(slog.DiscardHandler)}}
		l.cfg.Decap = datapath.DecapAuto
		want := table.NewSet()
		for _, step := range []struct {
			tap, off bool
			taken    string
		}{{false, false, ""}, {true, false, "dx2"}, {true, true, "veth"}} {
			if step.tap {
				want.Ports[7] = table.Port{IfIndex: 7}
			}
			if step.off {
				if err := netdev.RemoveDX2(); err != nil {
					t.Error(err)
				}
				for _, which := range []string{"all", "default"} {
					if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0); err != nil {
						t.Error(err)
					}
				}
			}
			if l.detour(want); sw.taken != step.taken || l.noDetour {
				t.Errorf("%+v: took %q, none can be made: %v", step, sw.taken, l.noDetour)
			}
		}
	}()
	<-done
}

package dist

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"pgregory.net/rapid"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
)

// walker is an agent without a network between: it reads and acknowledges when told to.
type walker struct {
	d        *Distributor
	name     string
	session  *session // nil while away
	receiver *hostwire.Receiver
	instance int
	unread   []*hostv1.Update
	unacked  []*hostv1.Ack
}

func (w *walker) arrive() {
	s := &session{d: w.d, host: w.name, instance: fmt.Sprint(w.instance), wake: make(chan struct{}, 1), cancel: func(error) {}, ctx: context.Background()}
	w.d.mu.Lock()
	w.d.hosts[w.name].arrive(s, w.receiver.Digest(), w.d.compiled.Digest(w.name), w.d.cfg.Now())
	w.d.mu.Unlock()
	w.session = s
	w.receiver.Restart()
}

func (w *walker) depart() {
	w.session.leave()
	w.session, w.unread, w.unacked = nil, nil, nil
}

// read takes one message; it reports false when there is none.
func (w *walker) read(t *rapid.T) bool {
	w.unread = append(w.unread, w.session.next()...)
	if len(w.unread) == 0 {
		return false
	}
	done, err := w.receiver.Receive(w.unread[0])
	w.unread = w.unread[1:]
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	if done {
		digest := w.receiver.Digest()
		w.unacked = append(w.unacked, &hostv1.Ack{Revision: w.receiver.Revision(), Digest: digest[:]})
	}
	return true
}

func (w *walker) ack() bool {
	if len(w.unacked) == 0 {
		return false
	}
	w.session.acknowledged(w.unacked[0])
	w.unacked = w.unacked[1:]
	return true
}

// forget loses the disk cache.
func (w *walker) forget() { w.receiver = hostwire.NewReceiver(goal.New(), 0) }

func TestWhatCountsAsAcknowledgedIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const hosts = 3
		d := New(Config{Logger: slog.New(slog.DiscardHandler)})
		resources := map[model.Key]model.Resource{}
		take := func(puts []model.Resource, deletes ...model.Key) {
			for _, key := range deletes {
				delete(resources, key)
			}
			for _, r := range puts {
				resources[model.KeyOf(r)] = r
			}
		}
		take(world(hosts, 4))
		revision := int64(1)
		d.Sync(world(hosts, 4), revision)
		var all [hosts]*walker
		for i := range all {
			all[i] = &walker{d: d, name: fmt.Sprint("h", i), receiver: hostwire.NewReceiver(goal.New(), 0)}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w := all[rapid.IntRange(0, hosts-1).Draw(t, "host")]
			i := rapid.IntRange(0, 7).Draw(t, "port")
			switch step := rapid.IntRange(0, 11).Draw(t, "step"); {
			case step < 4:
				revision++
				if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
					take(nil, portKey(i))
					d.Apply(nil, []model.Key{portKey(i)}, revision)
					break
				}
				p := portOn(i, rapid.SampledFrom([]string{"", "h0", "h1", "h2"}).Draw(t, "to"))
				p.Metadata.Revision = revision
				take(put(p))
				d.Apply(put(p), nil, revision)
			case step == 4:
				revision++
				var list []model.Resource
				for _, r := range resources {
					list = append(list, r)
				}
				d.Sync(list, revision)
			case step == 5:
				d.Preview(put(portOn(i, w.name)), nil)
			case w.session == nil:
				w.instance += rapid.IntRange(0, 1).Draw(t, "restart")
				if rapid.IntRange(0, 3).Draw(t, "forget") == 0 {
					w.forget()
				}
				w.arrive()
			case step == 6:
				w.depart()
			case step < 10:
				w.read(t)
			default:
				w.ack()
			}
			for _, w := range all {
				truth(t, d, w)
			}
		}
		for _, w := range all {
			if w.session == nil {
				w.arrive()
			}
			for w.read(t) || w.ack() {
			}
			truth(t, d, w)
		}
		for _, h := range d.Hosts() {
			if h.Lag != 0 || h.Acknowledged != revision {
				t.Fatalf("%s stops at %d of %d", h.Name, h.Acknowledged, revision)
			}
		}
		for key := range resources {
			if s := d.Status(key); !s.Programmed() {
				t.Fatalf("%s: %+v", key, s)
			}
		}
		if len(d.leaving) != 0 {
			t.Fatalf("removals are left: %v", d.leaving)
		}
	})
}

// truth: a host that owes nothing holds exactly its Goal.
func truth(t *rapid.T, d *Distributor, w *walker) {
	d.mu.Lock()
	h := d.hosts[w.name]
	owed := h.owes().owed()
	waiting := h.flight == nil && h.session != nil && h.waiting.owed() && !h.greeting && !h.snapshot && h.pending.Rows() == 0
	want := d.compiled.Goal(w.name)
	d.mu.Unlock()
	if !owed && w.session != nil && !w.receiver.Goal().Equal(want) {
		t.Fatalf("%s owes nothing and holds something else", w.name)
	}
	if waiting {
		t.Fatalf("%s owes something that nothing will be sent for", w.name)
	}
}

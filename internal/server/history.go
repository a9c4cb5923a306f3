package server

import (
	"github.com/weft-sdn/weft/internal/model"
)

// event is one resource at one revision; resource is nil when it was deleted.
type event struct {
	key      model.Key
	resource model.Resource
	revision int64
}

// history keeps the latest events, so that a watch can go on where it stopped. It is
// bounded; who is further behind than it reaches starts over with a snapshot.
type history struct {
	events []event
	floor  int64 // all events after this revision are here
}

// maxHistory is how many events are kept at least, once there were as many.
const maxHistory = 100_000

// reset forgets everything: policy is known from revision on.
func (h *history) reset(revision int64) { h.events, h.floor = nil, revision }

func (h *history) add(events ...event) {
	h.events = append(h.events, events...)
	if len(h.events) < 2*maxHistory {
		return
	}
	// Cut between revisions, half at a time so that the copy is rare.
	cut := len(h.events) - maxHistory
	for cut < len(h.events) && h.events[cut].revision == h.events[cut-1].revision {
		cut++
	}
	h.floor = h.events[cut-1].revision
	h.events = append([]event(nil), h.events[cut:]...)
}

// since gives the events after revision; false if they are not all here any more.
func (h *history) since(revision int64) ([]event, bool) {
	if revision < h.floor {
		return nil, false
	}
	i := len(h.events)
	for i > 0 && h.events[i-1].revision > revision {
		i--
	}
	return h.events[i:len(h.events):len(h.events)], true
}

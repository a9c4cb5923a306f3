package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// Sighting is a frame that speaks of addresses which policy may not know.
type Sighting struct {
	Time    time.Time
	VSID    model.VSID
	Port    model.PortID  // whose word it is, or whom it is for; 0: a DHCP server's word to all
	Verdict model.Verdict // so far: ANSWERED, a drop, or CONTINUE
	Inbound bool          // as the VM sees it
	Head    []byte        // the guest's frame, its first 400 bytes
}

// Sightings delivers what guests say of addresses until ctx ends, then closes the channel:
// a port's at 20 a second in the long run. Each goes to one reader only.
func (s *Switch) Sightings(ctx context.Context) (<-chan Sighting, error) {
	return readRing(ctx, s, "learn", decodeSighting)
}

func decodeSighting(raw []byte) (Sighting, bool) {
	var r learnRow
	if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &r); err != nil || int(r.HeadLen) > len(r.Head) {
		return Sighting{}, false
	}
	return Sighting{Time: fromMonotonic(r.Time), VSID: model.VSID(r.VSID), Port: model.PortID(r.Port), Verdict: model.Verdict(r.Verdict),
		Inbound: Direction(r.Direction) == Inbound, Head: bytes.Clone(r.Head[:r.HeadLen])}, true
}

package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// RuleMatch is one packet that a rule which logs has matched: a rule's first eleven at once, and ten a second.
type RuleMatch struct {
	Time       time.Time
	Rule       model.RuleID
	Port       model.PortID // whose rules these are
	Direction  Direction
	Length     uint32 // of the whole frame
	Query      table.Query
	Suppressed uint64 // packets that the rule has matched since its last RuleMatch, and that none tells of
}

// RuleLog delivers packets that rules log until ctx ends, then closes the channel. Each goes to one reader only.
func (s *Switch) RuleLog(ctx context.Context) (<-chan RuleMatch, error) {
	return readRing(ctx, s, "rule_log", func(raw []byte) (RuleMatch, bool) {
		var r ruleLogRow
		if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &r); err != nil {
			return RuleMatch{}, false
		}
		m := RuleMatch{Time: fromMonotonic(r.Time), Rule: s.ruleOf(r.Rule), Port: model.PortID(r.ID), Length: r.Len,
			Query: r.query(), Suppressed: r.Suppressed}
		if r.Inbound != 0 {
			m.Direction = Inbound
		}
		return m, m.Rule != model.RuleID{}
	})
}

func (r ruleLogRow) query() table.Query {
	q := table.Query{LocalMAC: macOf(r.LocalMAC), RemoteMAC: macOf(r.RemoteMAC), IP: r.IP != 0}
	if !q.IP {
		return q
	}
	q.Local, q.Remote = addrOf(r.Local, r.Is6 != 0), addrOf(r.Remote, r.Is6 != 0)
	classify.FromKeys(&q, r.LocalPort, r.RemotePort)
	return q
}

func macOf(n uint64) model.MAC {
	b := binary.BigEndian.AppendUint64(nil, n)
	return model.MAC(b[2:])
}

func addrOf(n [2]uint64, is6 bool) netip.Addr {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n[0]), n[1])
	if !is6 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16([16]byte(b))
}

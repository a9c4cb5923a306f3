package datapath

import (
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

const rewriteRemote = 1

type rewriteInRow struct {
	CA      [16]byte
	VSID    uint32
	Network uint32
	IfIndex uint32
	MAC     model.MAC
	Flags   uint16
	// Isolation of the port that has the address.
	Isolation uint32
}

func encodeRewriteIn(r table.RewriteIn) rewriteInRow {
	return rewriteInRow{CA: addr16(r.CA), VSID: uint32(r.VSID), Network: uint32(r.Network), IfIndex: r.IfIndex,
		MAC: r.MAC, Flags: flag[uint16](r.Remote, rewriteRemote), Isolation: uint32(r.Isolation)}
}

func decodeRewriteIn(r rewriteInRow) table.RewriteIn {
	return table.RewriteIn{CA: from16(r.CA), VSID: model.VSID(r.VSID), Network: model.NetworkIndex(r.Network), IfIndex: r.IfIndex,
		MAC: r.MAC, Remote: r.Flags&rewriteRemote != 0, Isolation: model.IsolationID(r.Isolation)}
}

func nameRewriteOut(k table.RecordKey) string {
	return fmt.Sprintf("rewrite of %s in subnet %s", k.CA, k.VSID)
}

func (s *Switch) putRewrites(want table.Set, d *delta) []error {
	name := func(pa netip.Addr) string {
		r := want.RewriteIn[pa]
		return fmt.Sprintf("provider address %s of %s in subnet %s", pa, r.CA, r.VSID)
	}
	errs := putRows(s.have.RewriteIn, want.RewriteIn, d.putIn, name, func(pa netip.Addr, r table.RewriteIn) error {
		return s.maps["rewrite_in"].Put(addr16(pa), encodeRewriteIn(r))
	})
	return append(errs, putRows(s.have.RewriteOut, want.RewriteOut, d.putOut, nameRewriteOut, func(k table.RecordKey, pa netip.Addr) error {
		return s.maps["rewrite_out"].Put(encodeRecordKey(k), addr16(pa))
	})...)
}

func (s *Switch) deleteRewrites(d *delta) []error {
	errs := deleteRows(s.have.RewriteOut, d.delOut, nameRewriteOut, func(k table.RecordKey) error { return s.maps["rewrite_out"].Delete(encodeRecordKey(k)) })
	name := func(pa netip.Addr) string { return fmt.Sprintf("provider address %s", pa) }
	errs = append(errs, deleteRows(s.have.RewriteIn, d.delIn, name, func(pa netip.Addr) error { return s.maps["rewrite_in"].Delete(addr16(pa)) })...)
	d.delOut, d.delIn = nil, nil
	return errs
}

// makeRewriteRoom deletes stale rows of tables that could not hold old and new at once.
func (s *Switch) makeRewriteRoom(d *delta) []error {
	if max(len(s.have.RewriteIn)+len(d.putIn), len(s.have.RewriteOut)+len(d.putOut)) <= int(s.opts.MaxRecords) {
		return nil
	}
	return s.deleteRewrites(d)
}

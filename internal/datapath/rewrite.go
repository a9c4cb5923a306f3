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

func (s *Switch) putRewrites(want table.Set, d *delta) []error {
	var errs []error
	for _, pa := range d.putIn {
		r := want.RewriteIn[pa]
		err := sameFamily(pa, r.CA)
		if err == nil {
			err = s.maps["rewrite_in"].Put(addr16(pa), encodeRewriteIn(r))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("provider address %s of %s in subnet %s: %w", pa, r.CA, r.VSID, err))
			continue
		}
		s.have.RewriteIn[pa] = r
	}
	for _, k := range d.putOut {
		pa := want.RewriteOut[k]
		err := sameFamily(pa, k.CA)
		if err == nil {
			err = s.maps["rewrite_out"].Put(encodeRecordKey(k), addr16(pa))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rewrite of %s in subnet %s: %w", k.CA, k.VSID, err))
			continue
		}
		s.have.RewriteOut[k] = pa
	}
	return errs
}

// sameFamily: an address takes the place of another in the same header.
func sameFamily(a, b netip.Addr) error {
	if a.Is4() != b.Is4() {
		return fmt.Errorf("%s and %s are not of one family", a, b)
	}
	return nil
}

func (s *Switch) deleteRewrites(d *delta) []error {
	var errs []error
	for _, k := range d.delOut {
		if err := ignoreMissing(s.maps["rewrite_out"].Delete(encodeRecordKey(k))); err != nil {
			errs = append(errs, fmt.Errorf("rewrite of %s in subnet %s: %w", k.CA, k.VSID, err))
			continue
		}
		delete(s.have.RewriteOut, k)
	}
	for _, pa := range d.delIn {
		if err := ignoreMissing(s.maps["rewrite_in"].Delete(addr16(pa))); err != nil {
			errs = append(errs, fmt.Errorf("provider address %s: %w", pa, err))
			continue
		}
		delete(s.have.RewriteIn, pa)
	}
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

package datapath

import (
	"fmt"

	"github.com/weft-sdn/weft/internal/table"
)

func encodeMACKey(k table.MACKey) localMACKey { return localMACKey{VSID: uint32(k.VSID), MAC: k.MAC} }

func (s *Switch) putIsolations(want table.Set, keys []table.MACKey) []error {
	var errs []error
	for _, k := range keys {
		v := want.Isolations[k]
		if err := s.maps["isolation"].Put(encodeMACKey(k), uint32(v)); err != nil {
			errs = append(errs, fmt.Errorf("isolation of %s in subnet %s: %w", k.MAC, k.VSID, err))
			continue
		}
		s.have.Isolations[k] = v
	}
	return errs
}

func (s *Switch) deleteIsolations(keys []table.MACKey) []error {
	var errs []error
	for _, k := range keys {
		if err := ignoreMissing(s.maps["isolation"].Delete(encodeMACKey(k))); err != nil {
			errs = append(errs, fmt.Errorf("isolation of %s in subnet %s: %w", k.MAC, k.VSID, err))
			continue
		}
		delete(s.have.Isolations, k)
	}
	return errs
}

package datapath

import (
	"fmt"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func encodeMACKey(k table.MACKey) localMACKey { return localMACKey{VSID: uint32(k.VSID), MAC: k.MAC} }

func nameIsolation(k table.MACKey) string {
	return fmt.Sprintf("isolation of %s in subnet %s", k.MAC, k.VSID)
}

func (s *Switch) putIsolations(want table.Set, keys []table.MACKey) []error {
	return putRows(s.have.Isolations, want.Isolations, keys, nameIsolation, func(k table.MACKey, v model.IsolationID) error {
		return s.maps["isolation"].Put(encodeMACKey(k), uint32(v))
	})
}

func (s *Switch) deleteIsolations(keys []table.MACKey) []error {
	return deleteRows(s.have.Isolations, keys, nameIsolation, func(k table.MACKey) error { return s.maps["isolation"].Delete(encodeMACKey(k)) })
}

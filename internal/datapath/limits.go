package datapath

// Limits are how many rows each table has room for.
type Limits struct{ Ports, Records, Routes, Peers uint32 }

// Limits of this switch.
func (s *Switch) Limits() Limits {
	return Limits{s.opts.MaxPorts, s.opts.MaxRecords, s.opts.MaxRoutes, s.opts.MaxPeers}
}

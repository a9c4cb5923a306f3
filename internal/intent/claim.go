package intent

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

// claim is something that at most one resource may hold at a time. It is a small
// value, not text, because a fleet holds hundreds of thousands of them.
type claim struct {
	what  claimed
	scope uint32 // VSID or network index inside which it is unique; 0: the fleet
	value [16]byte
	num   uint64
}

type claimed uint8

const (
	claimVSID claimed = iota + 1
	claimRDID
	claimNetwork // dense index
	claimPort    // dense index
	claimMAC     // scope: network index
	claimCA      // scope: VSID
	claimPA
	claimVLANMAC // num: of the external network
	claimRoute   // scope: network index; value, num: prefix and metric
)

func vsidClaim(v model.VSID) claim            { return claim{what: claimVSID, num: uint64(v)} }
func networkClaim(n model.NetworkIndex) claim { return claim{what: claimNetwork, num: uint64(n)} }
func portClaim(p model.PortID) claim          { return claim{what: claimPort, num: uint64(p)} }
func paClaim(a netip.Addr) claim              { return claim{what: claimPA, value: a.As16()} }

func caClaim(v model.VSID, a netip.Addr) claim {
	return claim{what: claimCA, scope: uint32(v), value: a.As16()}
}

func macClaim(n model.NetworkIndex, m model.MAC) claim {
	c := claim{what: claimMAC, scope: uint32(n)}
	copy(c.value[:], m[:])
	return c
}

func routeClaim(n model.NetworkIndex, p netip.Prefix, metric uint32) claim {
	return claim{what: claimRoute, scope: uint32(n), value: p.Addr().As16(), num: uint64(p.Bits())<<32 | uint64(metric)}
}

// rdidClaim of a GUID in canonical form.
func rdidClaim(rdid string) claim {
	c := claim{what: claimRDID}
	b, _ := hex.DecodeString(strings.ReplaceAll(rdid, "-", ""))
	copy(c.value[:], b)
	return c
}

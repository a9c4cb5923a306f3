package wire

// PortsLen is the length of the two port numbers, in bytes.
const PortsLen = 4

// Ports are the first four bytes of TCP (RFC 9293 section 3.1) and of UDP (RFC 768).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Ports struct{ Source, Destination uint16 }

// ParsePorts reads the first 4 bytes of b; ErrTruncated.
func ParsePorts(b []byte) (Ports, error) {
	if len(b) < PortsLen {
		return Ports{}, ErrTruncated
	}
	return Ports{be16(b), be16(b[2:])}, nil
}

// Encode writes 4 bytes; ErrTruncated.
func (h Ports) Encode(b []byte) error {
	if len(b) < PortsLen {
		return ErrTruncated
	}
	put16(b, h.Source)
	put16(b[2:], h.Destination)
	return nil
}

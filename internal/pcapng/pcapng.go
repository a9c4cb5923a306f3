// Package pcapng writes packet captures in the format that Wireshark reads
// (draft-ietf-opsawg-pcapng): one section, interfaces when they are first needed,
// packets with comments and nanosecond timestamps, and statistics at the end.
//
// Invariants: everything written by one call is a whole number of blocks, so a
// reader of a pipe always finds a file that is complete up to now; integers are
// little-endian. It must never buffer, open files or know what a packet means.
package pcapng

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Types of blocks.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6
)

// Options. Numbers below 2 are those of every block.
const (
	optEnd     = 0
	optComment = 1

	sectionProgram = 4

	interfaceName        = 2
	interfaceDescription = 3
	interfaceResolution  = 9

	packetFlags = 2

	statisticsStart    = 2
	statisticsEnd      = 3
	statisticsReceived = 4
	statisticsDropped  = 5
)

const (
	byteOrderMagic = 0x1a2b3c4d
	linkEthernet   = 1
	nanoseconds    = 9     // ten to the minus this
	maxOption      = 65535 // bytes; the length field has 16 bits
)

// Direction of a packet, as the flags of its block tell it.
type Direction uint32

// The directions.
const (
	Unknown  Direction = 0
	Inbound  Direction = 1
	Outbound Direction = 2
)

// Packet is one frame. Its first byte is the Ethernet destination.
type Packet struct {
	Interface int // as AddInterface gave it
	Time      time.Time
	Length    int // of the frame; at least len(Data)
	Data      []byte
	Comment   string
	Direction Direction
}

// Statistics of an interface.
type Statistics struct {
	Interface  int
	Start, End time.Time
	Received   uint64 // packets, lost ones included
	Dropped    uint64 // packets that are not in the file
}

// Writer writes one section. It is not for several goroutines.
type Writer struct {
	w          io.Writer
	interfaces int
	block      []byte
}

// NewWriter writes the section header. program is what made the capture.
func NewWriter(w io.Writer, program string) (*Writer, error) {
	p := &Writer{w: w}
	p.begin(blockSection)
	p.u32(byteOrderMagic)
	p.u16(1) // version 1.0
	p.u16(0)
	p.u64(^uint64(0)) // the section's length is not known
	p.text(sectionProgram, program)
	return p, p.end(true)
}

// AddInterface declares an interface and gives its number.
func (p *Writer) AddInterface(name, description string, snaplen int) (int, error) {
	p.begin(blockInterface)
	p.u16(linkEthernet)
	p.u16(0)
	p.u32(uint32(snaplen))
	p.text(interfaceName, name)
	p.text(interfaceDescription, description)
	p.option(interfaceResolution, []byte{nanoseconds})
	if err := p.end(true); err != nil {
		return 0, err
	}
	p.interfaces++
	return p.interfaces - 1, nil
}

// WritePacket writes an Enhanced Packet Block.
func (p *Writer) WritePacket(k Packet) error {
	if k.Interface < 0 || k.Interface >= p.interfaces {
		return fmt.Errorf("pcapng: packet of interface %d, which was not added", k.Interface)
	}
	if k.Length < len(k.Data) {
		return errors.New("pcapng: more bytes of a packet than it has")
	}
	p.begin(blockPacket)
	p.u32(uint32(k.Interface))
	p.time(k.Time)
	p.u32(uint32(len(k.Data)))
	p.u32(uint32(k.Length))
	p.padded(k.Data)
	p.text(optComment, k.Comment)
	if k.Direction != Unknown {
		p.option(packetFlags, binary.LittleEndian.AppendUint32(nil, uint32(k.Direction)))
	}
	return p.end(k.Comment != "" || k.Direction != Unknown)
}

// WriteStatistics writes an Interface Statistics Block.
func (p *Writer) WriteStatistics(s Statistics) error {
	if s.Interface < 0 || s.Interface >= p.interfaces {
		return fmt.Errorf("pcapng: statistics of interface %d, which was not added", s.Interface)
	}
	p.begin(blockStatistics)
	p.u32(uint32(s.Interface))
	p.time(s.End)
	p.option(statisticsStart, timestamp(s.Start))
	p.option(statisticsEnd, timestamp(s.End))
	p.option(statisticsReceived, binary.LittleEndian.AppendUint64(nil, s.Received))
	p.option(statisticsDropped, binary.LittleEndian.AppendUint64(nil, s.Dropped))
	return p.end(true)
}

// begin starts a block; end fills in its length.
func (p *Writer) begin(kind uint32) {
	p.block = p.block[:0]
	p.u32(kind)
	p.u32(0)
}

// end closes the options, if there are any, and the block, and writes it.
func (p *Writer) end(options bool) error {
	if options {
		p.u32(optEnd)
	}
	length := uint32(len(p.block) + 4)
	p.u32(length)
	binary.LittleEndian.PutUint32(p.block[4:], length)
	if _, err := p.w.Write(p.block); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

func (p *Writer) u16(v uint16) { p.block = binary.LittleEndian.AppendUint16(p.block, v) }
func (p *Writer) u32(v uint32) { p.block = binary.LittleEndian.AppendUint32(p.block, v) }
func (p *Writer) u64(v uint64) { p.block = binary.LittleEndian.AppendUint64(p.block, v) }

func (p *Writer) time(t time.Time) { p.block = append(p.block, timestamp(t)...) }

// timestamp is the high and then the low half of the nanoseconds since 1970.
func timestamp(t time.Time) []byte {
	ns := uint64(t.UnixNano())
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(ns>>32)), uint32(ns))
}

func (p *Writer) padded(b []byte) {
	p.block = append(p.block, b...)
	for len(p.block)%4 != 0 {
		p.block = append(p.block, 0)
	}
}

func (p *Writer) option(code uint16, value []byte) {
	p.u16(code)
	p.u16(uint16(len(value)))
	p.padded(value)
}

// text writes an option in UTF-8, cut where it is too long; an empty one is left out.
func (p *Writer) text(code uint16, s string) {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) > maxOption {
		n := maxOption
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	if s != "" {
		p.option(code, []byte(s))
	}
}

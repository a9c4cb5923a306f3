package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const pingTries = 5

// ping sends echo requests until one is answered, and says after how long.
func ping(to netip.Addr) (string, error) {
	network, request, reply, protocol := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if to.Is6() {
		network, request, reply, protocol = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	c, err := icmp.ListenPacket(network, "")
	if err != nil {
		return "", err
	}
	defer c.Close()
	for seq := 1; seq <= pingTries; seq++ {
		body := icmp.Echo{ID: os.Getpid(), Seq: seq, Data: bytes.Repeat([]byte{byte(seq)}, 56)}
		message, err := (&icmp.Message{Type: request, Body: &body}).Marshal(nil)
		if err != nil {
			return "", err
		}
		start := time.Now()
		if _, err := c.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return "", err
		}
		if answered(c, to, reply, protocol, seq) {
			return time.Since(start).String(), nil
		}
	}
	return "", fmt.Errorf("no answer from %s to %d echo requests", to, pingTries)
}

// answered waits a second for the reply with the sequence number.
func answered(c *icmp.PacketConn, from netip.Addr, reply icmp.Type, protocol, seq int) bool {
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	b := make([]byte, 1500)
	for {
		n, peer, err := c.ReadFrom(b)
		if err != nil {
			return false
		}
		m, err := icmp.ParseMessage(protocol, b[:n])
		if err != nil || m.Type != reply || peer.String() != from.String() {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.Seq == seq {
			return true
		}
	}
}

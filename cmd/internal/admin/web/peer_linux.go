package web

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// The states and inodes of /proc/net/tcp that matter here.
const (
	established = "01"
	noInode     = "0"
)

// peerUID returns the user of the process that holds the other end of a connection
// from client to server. It is not known for a connection from another machine or from
// behind another network namespace, and for one that its client closed already: the
// kernel shows those as root's.
func peerUID(client, server netip.AddrPort) (uid int, known bool) {
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st queues timer retransmits uid timeout inode …
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != established || f[9] == noInode || addrPort(f[1]) != client || addrPort(f[2]) != server {
				continue
			}
			uid, err := strconv.Atoi(f[7])
			return uid, err == nil
		}
	}
	return 0, false
}

// addrPort reads an address of those tables: 32-bit words as they lie in memory, then
// the port. What cannot be read is the zero value.
func addrPort(s string) netip.AddrPort {
	host, port, _ := strings.Cut(s, ":")
	var raw []byte
	for ; len(host) >= 8; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}

package web

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"strconv"
)

// nobody is the user that a user namespace shows in place of all those that it does
// not know.
const nobody = 65534

// stranger says why a request over TCP may change nothing without a token: it does not
// come from root or from the service's own user on this machine. It returns nil for
// one that may. A header is no proof of who sent it, the kernel's word is.
func stranger(r *http.Request) error {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return nil // the socket, whose mode says who may
	}
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return fmt.Errorf("the address of the caller cannot be read: %w", err)
	}
	own := os.Geteuid()
	uid, known := peerUID(unmapped(client), unmapped(addr.AddrPort()))
	if known && (uid == 0 || uid == own && own != nobody) {
		return nil
	}
	name := strconv.Itoa(own)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	way := "set --admin-token-file, or use the commands on this host as root or as " + name
	if !known {
		return errors.New("nothing may be changed here without a token by a user who is not known: " + way)
	}
	return fmt.Errorf("another user (uid %d) may not change anything here without a token: %s", uid, way)
}

// unmapped is an address as all tables can name it.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

//go:build !linux

package cli

// harden does nothing here: see harden_linux.go.
func harden(bool) {}

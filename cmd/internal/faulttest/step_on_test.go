//go:build faultpoint

package faulttest

const faultpoints = true

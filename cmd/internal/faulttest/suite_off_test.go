//go:build !faultpoint && !race

package faulttest

const suite = false

// Package faultpoint names the moments at which dying must be safe, so that a
// test can die exactly there. In every ordinary build its functions are empty
// and vanish; with the build tag faultpoint they obey two variables:
//
//	FAULTPOINT=NAME@N      kill -9 of ourselves when NAME is reached for the Nth time
//	FAULTPOINT_NOSYNC=1    JetStream does not fsync: the proof that a power cut would be noticed
//	FAULTPOINT_STALE_READS=1 any replica answers a read, and what it does not have is gone
package faultpoint

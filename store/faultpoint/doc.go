// Package faultpoint names the moments at which dying must be safe, so that a
// test can die exactly there, and the checks that a test must miss when they are
// left out. In every ordinary build its functions are empty and vanish; with the
// build tag faultpoint they obey these variables:
//
//	FAULTPOINT=NAME@N         kill -9 of ourselves when NAME is reached for the Nth time
//	FAULTPOINT_FILE=PATH      once this file says "kill NAME" or "freeze NAME", that happens when
//	                          NAME is reached next, and the file is removed
//	FAULTPOINT_WITHOUT=CHECK  CHECK is left out:
//	    fsync          JetStream does not fsync
//	    leader reads   any replica answers a read, and what it does not have is gone
//	    hold           a leader acts until it is told that it does not lead any more
//	    log fence      an entry of LEDGER is stored behind whatever is there
//	    subject fence  so is an envelope
package faultpoint

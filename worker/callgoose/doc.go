// Package callgoose is all we know about the receiving side: what one event
// looks like on the wire, how one request is made, and what an answer means.
//
// Client.Send makes exactly one request and has no retries of its own; a retry
// in memory would hide from the queue. The address and the token come from the
// configuration and are in no error, see package outbound.
//
// Sources: https://docs.callgoose.com/sqibs/how_to_send_api,
// https://docs.callgoose.com/sqibs/api_end_point.
package callgoose

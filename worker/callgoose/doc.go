// Package callgoose is all we know about the receiving side: what one event
// looks like on the wire, how one request is made, and what an answer means.
//
// Client.Send makes exactly one request and has no retries of its own; a retry
// in memory would hide from the queue. The address and the token come from the
// configuration and are in no error: *url.Error prints the whole URL with its
// query, so errors of the HTTP client are taken apart here and put together
// again without it.
//
// Sources: https://docs.callgoose.com/sqibs/how_to_send_api,
// https://docs.callgoose.com/sqibs/api_end_point.
package callgoose

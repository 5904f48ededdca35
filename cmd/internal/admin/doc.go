// Package admin is what operators and a running service say to each other: the
// types of the JSON API, the filters of its queries, and the Client that the
// commands use, over the Unix socket in the data directory or over TCP. The
// other side of it is package web below.
package admin

// Package doctor looks for what keeps alerts from arriving, and says for each
// finding what to do about it. It works beside a running service, which is
// asked about itself, and without one, when it checks the files.
//
//	configuration ▸ secrets ▸ data directory, disk, fsync ▸ intake
//	  ▸ Callgoose: proxy ▸ dns ▸ tcp ▸ tls ▸ http ▸ token ▸ clock ▸ filters
//	  ▸ what waits ▸ queue and ledger ▸ PMM
//
// Nothing is changed but a small file in the data directory, written to time
// fsync and removed. To see whether the token is accepted, one request is sent
// to Callgoose that asks for nothing (it is neither firing nor resolved): no
// filter should match it. No finding holds a secret.
//
// Run owns no goroutine when it has returned.
package doctor

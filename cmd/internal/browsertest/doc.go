// Package browsertest drives the operators' pages in a real Chromium. It is a
// module of its own, so that nothing of it comes into the program's list of
// dependencies. Without Chromium it skips and says so:
//
//	apt-get install chromium fonts-dejavu-core
//	cd cmd/internal/browsertest && go test -count=1 -v ./...
//
// PMM_CALLGOOSE_AXE names the axe.min.js of axe-core, which then looks at every page.
// PMM_CALLGOOSE_SCREENSHOTS names a directory for pictures of every page. The upper part
// of live-outage.png is deploy/docs/outage.png, which README.md shows.
package browsertest

// Package config turns a YAML file, the environment and the command line into
// one validated Config.
//
//	--flag  >  PMM_CALLGOOSE_FLAG  >  flag: in the file  >  default
//
//	secrets, first found wins:
//	  --x-file  >  PMM_CALLGOOSE_X_FILE  >  x-file: in the file
//	            >  $CREDENTIALS_DIRECTORY/x  >  PMM_CALLGOOSE_X
//
// Options is the one table: flags, variables, keys, help and documentation are
// derived from it. What the package promises:
//
//   - Nothing is ignored. An unknown key is an error, an unknown variable a
//     warning, and every problem is reported at once, with its place. What a
//     command that only asks the service does not need is a warning at most.
//   - No secret leaves through print, log or encoding: see Secret and URL.
//     Problems never quote a URL, nor a path that may be a token put in the
//     wrong place.
//
// It reads files only while Load and Secret.Reload run, starts no goroutine and
// keeps nothing open.
package config

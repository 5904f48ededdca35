#!/usr/bin/env bash
# Prints the bill of materials of a Go binary as CycloneDX 1.5, from what the Go
# linker wrote into it:  deploy/package/sbom.sh BINARY [FILE [VERSION]]
set -euo pipefail
exec >"${2:-/dev/stdout}"
go version -m "${1:?BINARY}" | awk -F'\t' -v version="${3:-}" '
	function purl(name, at) { gsub(/\+/, "%2B", at); return "pkg:golang/" name "@" at }
	NR == 1 { n = split($1, w, " "); go = w[n] }
	$2 == "mod" { name = $3; if (version == "") version = $4 }
	$2 == "dep" { deps[++count] = $3 "\t" $4 }
	$2 == "=>"  { deps[count] = $3 "\t" $4 } # a replacement stands for it
	END {
		printf "{\n  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"version\": 1,\n"
		printf "  \"metadata\": {\"component\": {\"type\": \"application\", \"name\": \"%s\", \"version\": \"%s\"}},\n", name, version
		printf "  \"components\": [\n    {\"type\": \"platform\", \"name\": \"go\", \"version\": \"%s\"}", go
		for (i = 1; i <= count; i++) {
			split(deps[i], d, "\t")
			printf ",\n    {\"type\": \"library\", \"name\": \"%s\", \"version\": \"%s\", \"purl\": \"%s\"}", d[1], d[2], purl(d[1], d[2])
		}
		printf "\n  ]\n}\n"
	}'
